from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffaudit.data.folders import ImageFolder, open_folder
from diffaudit.data.splits import check_disjoint, halves, split_identities
from diffaudit.errors import InvalidSetting, ThreatModelViolation

NAMES = [f"person-{number}" for number in range(40)]


def folder_of(root: Path, photos: dict[str, list[bytes]]) -> ImageFolder:
    for name, contents in photos.items():
        (root / name).mkdir(parents=True)
        for number, content in enumerate(contents):
            (root / name / f"{number}.png").write_bytes(content)
    return open_folder(root)


def unread(photos: dict[str, int]) -> ImageFolder:
    paths = tuple(Path(f"{name}/{number}.png") for name, count in photos.items() for number in range(count))
    labels = torch.tensor([label for label, count in enumerate(photos.values()) for _ in range(count)])
    return ImageFolder(paths, labels, tuple(photos))


def test_named_identities_are_private() -> None:
    assert split_identities(["c", "b", "a"], ["a", "c"], seed=0) == (["c", "a"], ["b"])


def test_drawn_identities_are_as_many_as_asked_and_every_name_is_on_one_side() -> None:
    private, public = split_identities(NAMES, 12, seed=0)
    assert len(private) == 12
    assert sorted(private + public) == sorted(NAMES)
    assert split_identities(NAMES, 12, seed=0) == (private, public)
    assert split_identities(NAMES, 12, seed=1) != (private, public)


def test_a_larger_draw_keeps_the_smaller_and_the_order_of_the_names_decides_nothing() -> None:
    few, many = (set(split_identities(NAMES, count, seed=3)[0]) for count in (5, 20))
    assert few < many
    assert set(split_identities(NAMES[::-1], 5, seed=3)[0]) == few


def test_every_identity_is_drawn_as_often() -> None:
    drawn = [name for seed in range(400) for name in split_identities(NAMES, 10, seed=seed)[0]]
    # Binomial (400, 1/4): mean 100, standard deviation 8.7.
    assert all(60 < drawn.count(name) < 140 for name in NAMES)


@pytest.mark.parametrize(
    ("names", "private", "message"),
    [
        (["a", "b"], 0, "`private` should be between 1 and 1, which leaves a public identity. Found 0."),
        (["a", "b"], 2, "Found 2."),
        (["a", "b"], ["z"], r"`private` should name identities of the folder. Found \['z'\]."),
        (["a", "b"], ["a", "b"], "`private` should leave an identity on either side."),
        (["a", "b"], [], "`private` should leave an identity on either side."),
        (["a", "a"], 1, r"`names` should be distinct. Found \['a'\]."),
    ],
)
def test_impossible_splits_are_refused(names: list[str], private: list[str] | int, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        split_identities(names, private, seed=0)


def test_disjoint_sides_pass(tmp_path: Path) -> None:
    private = folder_of(tmp_path / "private", {"ada": [b"1", b"2"]})
    public = folder_of(tmp_path / "public", {"ben": [b"3"], "cleo": [b"4"]})
    check_disjoint(private, public)


def test_the_two_sides_of_a_split_pass(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {name: [name.encode()] for name in NAMES})
    private, public = split_identities(folder.names, 10, seed=0)
    check_disjoint(folder.only(private), folder.only(public))


def test_shared_identities_are_named_whatever_their_case(tmp_path: Path) -> None:
    private = folder_of(tmp_path / "private", {"Ada": [b"1"], "ben": [b"2"]})
    public = folder_of(tmp_path / "public", {"ADA": [b"3"], "ben": [b"4"], "cleo": [b"5"]})
    with pytest.raises(ThreatModelViolation, match=r"Found 2 shared identities: ADA, ben\."):
        check_disjoint(private, public)


def test_the_same_bytes_under_another_name_are_found(tmp_path: Path) -> None:
    private = folder_of(tmp_path / "private", {"ada": [b"1", b"the same"]})
    public = folder_of(tmp_path / "public", {"eve": [b"2", b"3", b"the same"]})
    with pytest.raises(
        ThreatModelViolation, match=r"Found 1 with the same bytes: .*eve/2\.png = .*ada/1\.png\. Remove"
    ):
        check_disjoint(private, public)


def test_a_long_list_is_cut() -> None:
    many = unread(dict.fromkeys(NAMES, 1))
    with pytest.raises(ThreatModelViolation, match=r"Found 40 shared .*: person-0, .*, person-4 and 35 more\."):
        check_disjoint(many, many)


def test_halves_share_no_photo_and_lose_none() -> None:
    folder = unread({"ada": 6, "ben": 7, "cleo": 2})
    training, reference = halves(folder, seed=0)
    assert [training.labels.tolist().count(label) for label in range(3)] == [3, 4, 1]
    assert [reference.labels.tolist().count(label) for label in range(3)] == [3, 3, 1]
    assert sorted(training.paths + reference.paths) == sorted(folder.paths)
    assert training.names == reference.names == folder.names
    for half in (training, reference):
        assert [half.names[label] for label in half.labels.tolist()] == [path.parent.name for path in half.paths]


def test_halves_depend_on_the_seed_and_not_on_the_company() -> None:
    folder = unread({"ada": 10, "ben": 10})
    training = halves(folder, seed=0)[0]
    assert halves(folder, seed=0)[0].paths == training.paths
    assert halves(folder, seed=1)[0].paths != training.paths
    assert halves(folder.only(["ben"]), seed=0)[0].paths == training.only(["ben"]).paths


def test_a_single_photo_has_no_halves() -> None:
    with pytest.raises(InvalidSetting, match=r"at least two images of each class.* Found '1 of ben'"):
        halves(unread({"ada": 2, "ben": 1}), seed=0)
