"""The benchmark on real photographs: its settings fit its scripts, and, where the data is at hand, so do its splits."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from diffaudit.build import opened
from diffaudit.build.separation import check_separation
from diffaudit.records import RunFolder, append_lines
from diffaudit.settings import InversionSettings, NearestMean, PictureFolders, load_settings
from diffaudit.training.pool import Pool

from ..study.conftest import image

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "benchmarks" / "orl"
MODELS = Path("runs/orl-models")


def script(name: str) -> ModuleType:
    """A script of the benchmark as a module; its neighbours are found beside it, as when it is run."""
    spec = importlib.util.spec_from_file_location(f"orl_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `photographs` of the benchmark."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return script("photographs")


@pytest.fixture
def settings() -> InversionSettings:
    """The shipped settings of the benchmark."""
    return load_settings(REPOSITORY / "configs" / "orl.yaml")


@pytest.fixture
def data(photographs: ModuleType) -> Path:
    """The folder of the shared data."""
    folder: Path = photographs.data_folder()
    if not (folder / "faces_aligned" / "orl").is_dir():
        pytest.skip(f"no photographs in {folder}: set DIFFAUDIT_SHARED_DATA (see benchmarks/orl/README.md)")
    return folder


@pytest.fixture
def linked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data where the settings look for it: under a link that `train.py` makes in the working folder."""
    (tmp_path / MODELS).mkdir(parents=True)
    (tmp_path / MODELS / "data").symlink_to(data.resolve(), target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return data


def folders(pictures: object) -> PictureFolders:
    assert isinstance(pictures, PictureFolders)
    return pictures


def recogniser(settings: InversionSettings) -> NearestMean:
    judge = settings.judging.classifiers["mobilefacenet"]
    assert isinstance(judge, NearestMean)
    return judge


@pytest.mark.usefixtures("linked")
def test_attack_and_judges_share_no_model_and_nobody(settings: InversionSettings) -> None:
    check_separation(settings)


def test_the_private_people_are_excluded_from_the_public_and_included_by_every_judge(
    settings: InversionSettings,
) -> None:
    private = folders(settings.judging.private).include
    assert private is not None
    assert len(private) == 20
    assert folders(settings.attack.public).exclude == private
    assert recogniser(settings).pictures.include == private


def test_the_recogniser_compares_with_the_half_that_is_not_judged(settings: InversionSettings) -> None:
    known, judged = recogniser(settings).pictures, folders(settings.judging.private)
    assert (known.half, judged.half) == ("training", "reference")
    assert (known.folders, known.seed) == (judged.folders, judged.seed)


def test_no_path_of_the_settings_leaves_the_runs_folder(settings: InversionSettings) -> None:
    def paths(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for key, below in value.items():
                if key in ("folder", "path", "location") and isinstance(below, str):
                    yield below
                yield from below if key == "folders" else paths(below)

    found = list(paths(settings.model_dump(mode="json")))
    assert len(found) >= 10
    assert all(Path(path).is_relative_to(MODELS) for path in found)


def test_the_settings_name_the_people_whom_the_seed_draws(
    settings: InversionSettings, photographs: ModuleType, data: Path
) -> None:
    assert folders(settings.judging.private).include == photographs.private_names(data)


def test_training_and_audit_split_the_photographs_alike(
    settings: InversionSettings, photographs: ModuleType, linked: Path
) -> None:
    training, reference = photographs.private_halves(linked)
    [known], [judged] = opened(recogniser(settings).pictures), opened(folders(settings.judging.private))
    assert known.digests() == training.digests()
    assert judged.digests() == reference.digests()
    assert judged.labels.tolist() == reference.labels.tolist()
    assert not set(known.digests()) & set(judged.digests())
    public = opened(folders(settings.attack.public))
    assert [folder.names for folder in public] == [folder.names for folder in photographs.public_folders(linked)]
    assert [len(folder.names) for folder in public] == [18, 15, 10]


def test_imagined_people_are_grey_pictures_and_their_seed_makes_them(photographs: ModuleType) -> None:
    images = torch.randint(256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    few = Pool(images, torch.tensor([0, 0, 1, 1, 2, 2]))
    made = photographs.imagined_people(few, 9, 4, seed=5)
    assert (made.shape, made.dtype) == ((36, 3, 64, 64), torch.uint8)
    assert (made == made[:, :1]).all()
    assert torch.equal(made, photographs.imagined_people(few, 9, 4, seed=5))
    assert not torch.equal(made, photographs.imagined_people(few, 9, 4, seed=6))


def test_grey_is_luminance(photographs: ModuleType) -> None:
    green = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 2, 2)
    torch.testing.assert_close(photographs.grey(green), torch.full((1, 3, 2, 2), 0.587))


def test_the_data_folder_is_the_argument_then_the_environment_then_beside_the_repository(
    photographs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFAUDIT_SHARED_DATA", "elsewhere")
    assert photographs.data_folder(Path("given")) == Path("given")
    assert photographs.data_folder() == Path("elsewhere")
    monkeypatch.delenv("DIFFAUDIT_SHARED_DATA")
    assert photographs.data_folder() == REPOSITORY.parent / "shared" / "data"


def test_the_picture_of_the_results_shows_reconstructions_alone(tmp_path: Path) -> None:
    """Of three colours in the run's folder, the photographs' is not in the picture."""
    results, run = script("results"), RunFolder(tmp_path)
    grey, red = (100, 100, 100), (250, 0, 0)
    records = [image("attack", 0, 0, True), image("attack", 1, 0, False)]
    append_lines(run.records, [record.to_json() for record in records])
    for path, colour in [(record.image, grey) for record in records] + [("images/reference/0000-00.png", red)]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / path)
    seen = {colour for _, colour in results.reconstructions(run, "one").getcolors(1 << 16)}
    assert {grey, results.RECOGNISED, results.MISTAKEN} <= seen
    assert red not in seen


def test_a_cell_is_framed(tmp_path: Path) -> None:
    results = script("results")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "face.png")
    cell = results._framed(tmp_path / "face.png", results.RECOGNISED)
    assert cell.getpixel((0, 0)) == results.RECOGNISED
    assert cell.getpixel((results.CELL // 2, results.CELL // 2)) == (1, 2, 3)
