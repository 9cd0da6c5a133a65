"""The benchmark on ImageNet: its splits, rows and settings fit each other, and its scripts do what they say."""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from diffaudit.build import build_prior, victims
from diffaudit.errors import InvalidSetting
from diffaudit.models.prompts import label_tokens
from diffaudit.records import PerturbationRecord, RunFolder
from diffaudit.settings import ExportedAutoencoderModel, ExportedModel, LabelledPictures, PriorModel, load_perturbation
from diffaudit.study.perturbation_metrics import perturbation_metrics
from diffaudit.training.bench import Bench

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "benchmarks" / "imagenet"
MODULES = ("families", "photographs", "results", "run", "train")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The benchmark's scripts as modules, by name; their names are free again afterwards."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def run(script: Any) -> ModuleType:
    found: ModuleType = script("run")
    return found


@pytest.fixture
def rows(run: ModuleType) -> list[Any]:
    found: list[Any] = run.read_rows(SCRIPTS / "rows.yaml")
    return found


# Splits and rows ------------------------------------------------------------------------------------------------------


def test_each_split_holds_one_family_out_and_the_rest_are_surrogates_or_siblings(script: Any) -> None:
    families = script("families")
    known = [name for names in families.FAMILIES.values() for name in names]
    assert sorted(known) == sorted(families.MODELS)
    assert sorted(split.heldout for split in families.SPLITS) == sorted(families.FAMILIES)
    for split in families.SPLITS:
        values = split.settings("models")
        roles = [values["surrogates"], values["judging.heldout"], values["judging.siblings"]]
        assert sorted(name for role in roles for name in role) == sorted(known)
        assert set(roles[1]) == set(families.FAMILIES[split.heldout])
        attacked = {family for family, names in families.FAMILIES.items() if set(names) & set(roles[0])}
        assert attacked == set(families.FAMILIES) - {split.heldout}
        assert len(roles[0]) == 3


def test_the_shipped_settings_are_the_first_split(run: ModuleType) -> None:
    first = run.settings_of(run.Row("any", "", {}), run.SPLITS[0])
    assert first.model_copy(update={"name": "imagenet"}) == load_perturbation(run.BASE)


def test_every_row_of_every_split_is_sound(run: ModuleType, rows: list[Any]) -> None:
    assert [row.name for row in rows][:2] == ["pull", "unmoved"]
    for split in run.SPLITS:
        for row in rows:
            settings = run.settings_of(row, split, quick=True)
            assert isinstance(settings.images, LabelledPictures)
            assert settings.images.count == 4
            assert settings.budget.iterations <= 3
            assert all(isinstance(model, ExportedModel) for model in settings.surrogates.values())


def test_attacks_on_pixels_are_asked_for_in_one_row(run: ModuleType, rows: list[Any]) -> None:
    asked = [run.settings_of(row, run.SPLITS[0]).judging.references for row in rows]
    [found] = [references for references in asked if references]
    assert {(one.method, one.budget) for one in found} == {
        (method, budget) for method in ("pgd", "mi-fgsm") for budget in (4, 8, 16)
    }


def test_paths_lead_to_the_models_folder_wherever_it_is(run: ModuleType, rows: list[Any]) -> None:
    def paths(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for below in value.values():
                yield from paths(below)
        elif isinstance(value, str) and "/" in value:
            yield value

    for models in (run.MODELS, "else/where"):
        settings = run.settings_of(rows[0], run.SPLITS[1], models=models)
        found = list(paths(settings.model_dump(mode="json")))
        assert len(found) >= 13
        assert all(Path(path).is_relative_to(models) for path in found)


def test_rows_that_are_none_and_names_that_nobody_bears(run: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text("pull: {says: something}\n")
    with pytest.raises(InvalidSetting, match="rows, each with `says` and `set`"):
        run.read_rows(tmp_path / "rows.yaml")
    assert run.chosen(["b", "a"], ["a", "b", "c"], "rows") == ["a", "b"]
    assert run.chosen(None, ["a", "b"], "rows") == ["a", "b"]
    with pytest.raises(InvalidSetting, match=r"`rows` should be of a, b\. Found 'd'"):
        run.chosen(["d"], ["a", "b"], "rows")


# Tables ---------------------------------------------------------------------------------------------------------------

ROLES = {"one": "surrogate", "far": "heldout", "near": "sibling"}


def record(row: str, image: int, fooled: bool) -> PerturbationRecord:
    """All models are right on the clean picture; the held-out one is fooled or not, the others are."""
    predicted = {"one": 9, "near": 9, "far": 9 if fooled else image}
    return PerturbationRecord(
        row=row,
        image=image,
        name=f"picture-{image}",
        label=image,
        goal=None,
        picture="",
        clean_picture="",
        clean_hits=dict.fromkeys(ROLES, True),
        predicted=predicted,
        fooled={name: found != image for name, found in predicted.items()},
        defended={"jpeg-75": {name: float(found != image) for name, found in predicted.items()}},
        perceptual_distance=0.1,
        ssim=0.9,
        psnr=30.0,
        l2=1.0,
        linf=0.1,
        colour_difference=2.0,
        reconstruction_psnr=None,
        iterations=None,
    )


def finished(folder: Path, votes: dict[str, list[bool]]) -> RunFolder:
    """A run as its files are, of records in rows."""
    found = [record(row, image, vote) for row, given in votes.items() for image, vote in enumerate(given)]
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.records.write_text("".join(one.to_json() + "\n" for one in found))
    run.metrics.write_text(json.dumps(perturbation_metrics(found, ROLES, seconds={"attack": 8.0}, resamples=10)))
    return run


def test_the_page_has_every_row_and_compares_it_with_the_first(script: Any, tmp_path: Path) -> None:
    results = script("results")
    pull = finished(tmp_path / "pull", {"attack": [True, False, False, False], "pgd-8": [False] * 4})
    more = finished(tmp_path / "more", {"attack": [True, True, True, False]})
    runs = [results.Finished("without-x", "pull", pull), results.Finished("without-x", "more", more)]
    page = results.results_page(runs, {"pull": "the pull", "more": "and more"})
    assert "surrogates: one; held out: far; siblings: near." in page
    success, distances, defended, paired = (part.splitlines() for part in page.split("| Row |")[1:])
    assert [line.split(" | ")[0] for line in success[2:5]] == ["| pull", "| PGD 8/255", "| more"]
    assert [line.split(" | ")[2].split()[0] for line in success[2:5]] == ["25.0", "0.0", "75.0"]
    assert success[2].endswith("| 2.00 |")
    assert "SSIM" in distances[0]
    assert "Behind jpeg-75" in defended[0]
    [pixels, other] = [[cell.strip() for cell in line.strip("|").split("|")] for line in paired[2:4]]
    assert (pixels[0], pixels[1], pixels[-2:]) == ("PGD 8/255", "4", ["0", "1"])
    assert (other[0], other[2].split()[0], other[-2:]) == ("more", "+50.0", ["2", "0"])


# The prior ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three photographs of four classes in the layout of the benchmark."""
    folder = tmp_path / "data" / "imagenet"
    (folder / "images").mkdir(parents=True)
    for number in range(3):
        ramp = Image.linear_gradient("L").rotate(90 * number)
        Image.merge("RGB", (ramp, ramp.rotate(90), ramp)).save(folder / "images" / f"{number}.png")
    (folder / "labels.csv").write_text("file,class_index\n0.png,0\n1.png,2\n2.png,3\n")
    (folder / "classes.csv").write_text("class_index,name\n0,great_white_shark\n1,red_fox\n2,crane\n3,crane\n")
    return tmp_path / "data"


def test_views_begin_with_the_picture_as_it_is_attacked(script: Any, data: Path) -> None:
    photographs = script("photographs")
    found = photographs.views(data, 4, seed=1).view(3, 4, 3, 128, 128)
    attacked = photographs.photographs(data)
    assert torch.equal(found[:, 0], attacked.images)
    assert torch.equal(found[:, 1], attacked.images.flip(-1))
    assert not (found[:, 2] == found[:, 3]).all()
    assert torch.equal(photographs.views(data, 4, seed=1).view_as(found), found)
    assert not torch.equal(photographs.views(data, 4, seed=2).view_as(found), found)
    assert attacked.classes[0] == "great white shark"


def exported(model: nn.Module, path: Path, channels: int, unit: int) -> Path:
    batch, height, width = torch.export.Dim("batch"), torch.export.Dim("h", max=64), torch.export.Dim("w", max=64)
    sizes = {0: batch, 2: unit * height, 3: unit * width}
    program = torch.export.export(model, (torch.rand(2, channels, 8 * unit, 12 * unit),), dynamic_shapes=(sizes,))
    program.example_inputs = None
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return path


def test_a_trial_trains_a_prior_that_an_audit_can_open(
    script: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = script("train")
    monkeypatch.setattr(train, "WIDTHS", (16, 16))
    folder = data / "models" / "autoencoder"
    encoder = exported(nn.Conv2d(3, 4, 8, stride=8), folder / "taef2_encoder.pt2", 3, 8)
    decoder = exported(nn.ConvTranspose2d(4, 3, 8, stride=8), folder / "taef2_decoder_raw.pt2", 4, 1)
    said: list[str] = []
    recipes = {"prior": train.Recipe(1, 2, train.Schedule(steps=2, rate=1e-3, warmup=1))}
    bench = Bench("imagenet", data, tmp_path / "models", recipes, True, said.append)
    train.make_prior(bench)
    card = json.loads((bench.output / "prior" / "card.json").read_text())
    assert card["command"] == "python benchmarks/imagenet/train.py --quick"
    assert "has seen the photographs that are attacked" in card["limits"]
    assert {"final_loss", "autoencoder_psnr_db", "inversion_psnr_of_seen_pictures_db"} <= card["scores"].keys()
    programs = ExportedAutoencoderModel(encoder=encoder, decoder=decoder)
    prior = build_prior(PriorModel(kind="diffusers", location=str(bench.output / "prior"), autoencoder=programs))
    raw = torch.cat([train.raw_latents(bench, train.opened_autoencoder(data), train.QUICK_VIEWS)])
    assert float(((raw - prior.autoencoder.config.shift_factor) * prior.autoencoder.config.scaling_factor).std()) == (
        pytest.approx(1, abs=0.01)
    )
    shown = train.photographs(data)
    torch.testing.assert_close(
        prior.encode(shown.images.float() / 255),
        (raw[:: train.QUICK_VIEWS] - prior.autoencoder.config.shift_factor) * prior.autoencoder.config.scaling_factor,
    )
    prompt = "a photo of a great white shark and red fox"
    assert prior.text is not None
    assert len(label_tokens(prior.text.tokenizer, prompt, "great white shark", length=train.PROMPT_TOKENS)) >= 3
    shutil.rmtree(bench.output / "prior")
    train.make_prior(bench)
    assert json.loads((bench.output / "prior" / "card.json").read_text())["fingerprint"] == card["fingerprint"]


def test_the_shared_photographs_and_their_words(script: Any) -> None:
    photographs, train = script("photographs"), script("train")
    data: Path = photographs.data_folder()
    if not (data / "imagenet" / "images").is_dir():
        pytest.skip(f"no photographs in {data}: set DIFFAUDIT_SHARED_DATA (see benchmarks/imagenet/README.md)")
    folder = data / "imagenet"
    few = LabelledPictures(folder=folder, labels=folder / "labels.csv", names=folder / "classes.csv", size=16, count=3)
    found = victims(few)
    assert (len(found), len(found.classes)) == (3, 1000)
    assert found.labels.tolist() == [0, 5, 10]
    assert found.classes[2] == "great white shark"
    classes = found.classes
    pairs = [
        f"{caption} and {rival}" for caption, rival in zip(train.captions(classes), reversed(classes), strict=True)
    ]
    tokenizer = train.subword_tokenizer(pairs, size=train.VOCABULARY, length=train.PROMPT_TOKENS)
    longest = sorted(classes, key=lambda name: len(tokenizer(name)["input_ids"]))[-2:]
    prompt = f"{train.captions(longest)[0]} and {longest[1]}"
    assert len(tokenizer(prompt)["input_ids"]) <= train.PROMPT_TOKENS
    for label in longest:
        assert len(label_tokens(tokenizer, prompt, label)) > 1
