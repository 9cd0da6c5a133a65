"""The benchmark on ImageNet: its splits, rows and settings fit each other, and its scripts do what they say."""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffaudit.build import build_prior, victims
from diffaudit.errors import InvalidSetting
from diffaudit.models.prompts import label_tokens
from diffaudit.settings import (
    ExportedAutoencoderModel,
    LabelledPictures,
    PerturbationSettings,
    PriorModel,
    load_perturbation,
)
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.measured_rows import TableRow
from diffaudit.study.row_images import RowImages
from diffaudit.training.bench import Bench

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "benchmarks" / "imagenet"
MODULES = ("over_splits", "photographs", "train")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The benchmark's scripts as modules, by name; their names are free again afterwards."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module
    for name in MODULES:
        sys.modules.pop(name, None)


# Splits ---------------------------------------------------------------------------------------------------------------

FAMILIES = {
    "mbconv": {"efficientnet_lite0", "mobilenet_v2"},
    "mobilenet-v1": {"mobilenet_v1_050", "mobilenet_v1_025_float", "mobilenet_v1_025"},
    "squeezenet": {"squeezenet1_1", "squeezenet1_0"},
}
"""Networks of one family are no independent judges of each other."""


@pytest.mark.parametrize("heldout", sorted(FAMILIES))
def test_each_split_holds_one_family_out_and_the_rest_are_surrogates_or_siblings(heldout: str) -> None:
    ablation = load_ablation(SCRIPTS / f"without-{heldout}.yaml")
    assert [row.name for row in ablation.rows if row.is_baseline] == ["baseline+mean"]
    for row in ablation.rows:
        settings = row.settings
        assert isinstance(settings, PerturbationSettings)
        roles = [set(models) for models in (settings.surrogates, settings.judging.heldout, settings.judging.siblings)]
        assert sorted(name for role in roles for name in role) == sorted(set().union(*FAMILIES.values()))
        assert roles[1] == FAMILIES[heldout]
        attacked = {family for family, names in FAMILIES.items() if names & roles[0]}
        assert attacked == set(FAMILIES) - {heldout}
        assert len(roles[0]) == 3


def test_the_shipped_settings_are_the_first_split() -> None:
    full = next(row for row in load_ablation(SCRIPTS / "without-squeezenet.yaml").rows if row.name == "full").settings
    shipped = load_perturbation(REPOSITORY / "configs" / "imagenet.yaml")
    assert isinstance(full, PerturbationSettings)
    for section in ("surrogates", "prior", "prompts", "terms", "loss", "latents", "ensemble", "step", "budget"):
        assert getattr(full, section) == getattr(shipped, section)
    assert full.judging.heldout == shipped.judging.heldout
    assert full.judging.siblings == shipped.judging.siblings


def test_over_the_splits_a_picture_counts_once(script: Any) -> None:
    over_splits = script("over_splits")

    def row(name: str, pictures: str, *fooled: float) -> TableRow:
        columns = dict.fromkeys([*over_splits.MEASURES, "transfer.one"], np.array(fooled))
        keys = tuple((picture, 0, place) for place, picture in enumerate(pictures))
        images = RowImages(keys, columns, frozenset({"transfer_mean", "transfer.one"}))
        return TableRow(name, None, images, is_baseline=name == "old")

    nan = float("nan")  # no held-out model of that split had the picture right
    one = [row("old", "abc", 0, 1, nan), row("new", "abc", 1, 1, nan)]
    other = [row("new", "ac", 1, nan), row("old", "ac", 0.5, nan)]
    old, new = over_splits.pooled({"one": one, "other": other})
    assert (old.name, old.is_baseline, new.name, new.is_baseline) == ("old", True, "new", False)
    assert old.images.keys == new.images.keys == (("a", 0, 0), ("b", 0, 1), ("c", 0, 2))
    assert set(old.images.columns) == set(over_splits.MEASURES)
    assert old.images.shares == {"transfer_mean"}
    np.testing.assert_equal(old.images.columns["transfer_mean"], [0.25, 1.0, nan])
    with pytest.raises(InvalidSetting, match=r"`runs` should lack no row of other\. Found \['new'\]"):
        over_splits.pooled({"one": one, "other": other[1:]})
    with pytest.raises(InvalidSetting, match=r"Found \['every row'\]"):
        over_splits.pooled({"one": [], "other": []})


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
