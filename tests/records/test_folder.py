"""A run's files are there whole or not at all, and all lie inside its folder."""

import json
from pathlib import Path

import pytest

from diffaudit.records import RunFolder, write_atomically, write_json


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "metrics.json"
    write_atomically(path, "first")
    assert path.read_text() == "first"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, "second")
    assert path.read_text() == "first"
    write_atomically(path, "third")
    assert path.read_text() == "third"
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_json_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"value": 0.5, "low": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 0.5, "low": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["value"] == 0.5


def test_everything_of_a_run_lies_inside_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    places = {getattr(run, name) for name, value in vars(RunFolder).items() if isinstance(value, property)}
    assert len(places) == 10
    assert all(place.parent == (run.checkpoints if place == run.training else tmp_path) for place in places)
    assert run.attention(7, "before") == tmp_path / "images" / "attention" / "00007-before.png"
