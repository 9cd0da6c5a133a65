"""Every rule of the settings, by its message: key, rule, value found."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.quick import trial
from diffaudit.settings import (
    GROUPS,
    FixedWeights,
    InversionSettings,
    SettingsError,
    Stage,
    check_settings,
    dump_settings,
    load_settings,
)

BOUNDED = {"cls": [{"kind": "top_k", "bounded": True}]}
STAGE = {"name": "one", "trains": ["lora"], "steps": 3, "rate": 0.1, "weights": {"cls": 1.0}}
FOLDERS = {"kind": "folders", "folders": ["a", "b"]}


def faults_of(values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        check_settings(values)
    return caught.value.faults


def file_faults(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)
    return caught.value.faults


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"sede": 3}, "`sede` should be left out: no such key. Found 3. Perhaps `seed` is meant."),
        ({"zzz": 3}, "`zzz` should be left out: no such key. Found 3."),
        (
            {"image": {"stepz": 3}},
            "`image.stepz` should be left out: no such key. Found 3. Perhaps `steps` is meant.",
        ),
        ({"audit": "theft"}, "`audit` should be 'inversion'. Found 'theft'."),
        ({"name": "../up"}, "`name` should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'. Found '../up'."),
        ({"name": ""}, "`name` should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'. Found ''."),
        ({"name": None}, "`name` should be a valid string. Found None."),
        ({"seed": 1.5}, "`seed` should be a valid integer. Found 1.5."),
        ({"seed": "x"}, "`seed` should be a valid integer. Found 'x'."),
        ({"seed": -1}, "`seed` should be greater than or equal to 0. Found -1."),
        ({"seed": 2**32}, "`seed` should be less than 4294967296. Found 4294967296."),
        ({"threads": 0}, "`threads` should be greater than or equal to 1. Found 0."),
        ({"threads": True}, "`threads` should be a number. Found True."),
        ({"optimiser": {"clip": 0}}, "`optimiser.clip` should be greater than 0. Found 0."),
        ({"optimiser": {"clip": float("nan")}}, "`optimiser.clip` should be a finite number. Found nan."),
        ({"optimiser": {"clip": float("inf")}}, "`optimiser.clip` should be a finite number. Found inf."),
        ({"optimiser": {"warmup": -1}}, "`optimiser.warmup` should be greater than or equal to 0. Found -1."),
        ({"image": {"strength": 0}}, "`image.strength` should be greater than 0. Found 0."),
        ({"image": {"strength": 1.1}}, "`image.strength` should be less than or equal to 1. Found 1.1."),
        ({"image": {"guidance_scale": 0.5}}, "`image.guidance_scale` should be greater than or equal to 1. Found 0.5."),
        ({"image": {"mode": "x"}}, "`image.mode` should be 'one_step' or 'rollout'. Found 'x'."),
        (
            {"image": {"steps": 2, "gradient_steps": 3}},
            "`image.gradient_steps` should be at most `steps` (2). Found 3.",
        ),
        ({"sampling": {"keep": 9}}, "`sampling.keep` should be at most `candidates` (8). Found 9."),
        ({"embedding": {"layers": 4}}, "`embedding.layers` should be less than or equal to 3. Found 4."),
        (
            {"terms": {"cls": [{"kind": "feature", "factor": -1}]}},
            "`terms.cls.0.factor` should be greater than 0. Found -1.",
        ),
        (
            {"terms": {"cls": [{"kind": "cosine"}]}},
            "`terms.cls.0.kind` should be one of 'top_k', 'feature', 'logit_margin', 'angular_margin'. Found 'cosine'.",
        ),
        (
            {"terms": {"cls": [{"kind": "angular_margin"}]}},
            "`terms.cls.0.logit_scale` should be given. Found nothing.",
        ),
        (
            {"terms": {"id": [{"kind": "identity"}, {"kind": "identity"}]}},
            "`terms.id` should hold one term of a kind. Found identity, identity.",
        ),
        (
            {"terms": {"bank": {"capacity": 0, "interval": None}}},
            "`terms.bank.capacity` should be above 0 where `interval` is null: the bank would stay empty. Found 0.",
        ),
        ({"attack": None}, "`attack` should be a mapping of keys. Found None."),
        ({"attack": [1]}, "`attack` should be a mapping of keys. Found [1]."),
        ({"attack": {"target": "timm:x"}}, "`attack.target` should be a mapping of keys. Found 'timm:x'."),
        ({"attack": {"target": {"name": "x"}}}, "`attack.target.kind` should be given. Found nothing."),
        ({"attack": {"target": {"kind": "bundled"}}}, "`attack.target.name` should be given. Found nothing."),
        ({"attack": {"target": {"kind": "trained", "folder": 3}}}, "`attack.target.folder` should be a path. Found 3."),
        (
            {"attack": {"encoder": {"kind": "timm", "name": "x"}}},
            "`attack.encoder.kind` should be one of 'bundled', 'trained', 'pt2'. Found 'timm'.",
        ),
        (
            {"judging": {"classifiers": {"one": {"kind": "given"}}}},
            "`judging.classifiers.one.kind` should be one of 'bundled', 'trained', 'pt2', 'timm', 'torchvision', "
            "'efficientnet_lite', 'nearest_mean'. Found 'given'.",
        ),
        (
            {"judging": {"factors": {"kind": "pt2", "path": "x.pt2", "size": 8}}},
            "`judging.factors.kind` should be one of 'bundled', 'trained'. Found 'pt2'.",
        ),
        (
            {"attack": {"public": {**FOLDERS, "folders": []}}},
            "`attack.public.folders` should have at least 1 item. Found [].",
        ),
        ({"attack": {"public": {**FOLDERS, "folders": [4]}}}, "`attack.public.folders.0` should be a path. Found 4."),
        (
            {"attack": {"public": {"kind": "faces", "identities": 1}}},
            "`attack.public.identities` should be greater than or equal to 2. Found 1.",
        ),
        ({"attack": {"prior": {"bundled": {}}}}, "`attack.prior.bundled` should be left out: no such key. Found {}."),
        ({"judging": {"classifiers": {}}}, "`judging.classifiers` should have at least 1 item. Found {}."),
        (
            {"judging": {"classifiers": {"a": {"kind": "bundled", "nme": 1, "name": "x"}}}},
            "`judging.classifiers.a.nme` should be left out: no such key. Found 1. Perhaps `name` is meant.",
        ),
        (
            {"weighting": {"kind": "x"}},
            "`weighting.kind` should be one of 'fixed', 'staged', 'uncertainty', 'aggregated'. Found 'x'.",
        ),
        ({"stages": 3}, "`stages` should be a list. Found 3."),
        ({"stages": []}, "`stages` should have at least 1 item. Found []."),
        (
            {"stages": [STAGE, {**STAGE, "trains": ["unet"]}]},
            "`stages.1.trains.0` should be 'embedding', 'lora' or 'projector'. Found 'unet'.",
        ),
        (
            {"stages": [{**STAGE, "weights": {"clss": 1.0}}]},
            "`stages.0.weights` should have keys among 'prior', 'cls', 'id', 'perc' or 'reg'. Found 'clss'.",
        ),
        (
            {"stages": [{**STAGE, "weights": {"cls": True}}]},
            "`stages.0.weights.cls` should be a number. Found True.",
        ),
        ({"stages": [STAGE, STAGE]}, "`stages` should have names of their own. Found ['one', 'one']."),
        (
            {"stages": [{**STAGE, "trains": ["embedding"], "condition": "image"}]},
            "`stages.0.condition` should be 'label' or 'hybrid' where a stage trains `embedding` alone: no picture "
            "would show what is trained. Found 'image'.",
        ),
        (
            {"stages": [STAGE, {**STAGE, "name": "idle", "weights": {"cls": 0.0}}]},
            "`stages` should each have a weight above 0, for else nothing trains. Found none in idle. Give one, or 0 "
            "steps.",
        ),
        (
            {"weighting": {"kind": "aggregated"}, "stages": [{**STAGE, "weights": {}}]},
            "`stages` should each have a weight above 0, for else nothing trains. Found none in one. Give one, or 0 "
            "steps.",
        ),
        ({3: 4}, "`settings` should have words as keys. Found 3."),
    ],
)  # fmt: skip
def test_a_rule_and_its_message(values: dict[str, Any], fault: str) -> None:
    assert faults_of(values) == [fault]


LEARNED: dict[str, Any] = {"weighting": {"kind": "uncertainty"}, "terms": BOUNDED}
TWO = {**STAGE, "name": "two", "steps": 9}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"stages": [{**STAGE, "trains": ["lora", "lora"]}]},
            "`stages.0.trains` should name each part once. Found lora, lora.",
        ),
        (
            {"weighting": {"kind": "uncertainty"}},
            "`terms.cls.0.bounded` should be true where the weight of `cls` is learned: a weight that learns on a loss "
            "which may be negative grows without end. Found False. Set it, which takes the softplus, or give `cls` a "
            "weight in `weighting.fixed`.",
        ),
        (
            {"weighting": {"kind": "staged", "handover": 4}, "stages": [STAGE, TWO]},
            "`weighting.handover` should be at most the steps of every stage but the last, so that each hand-over ends "
            "before the next. Found 4, and 3 steps in one.",
        ),
        (
            {**LEARNED, "weighting": {"kind": "uncertainty", "fixed": {"prior": 1.0}, "initial": {"prior": 2.0}}},
            "`weighting.initial` should name groups whose weight is learned: cls, id, perc. Found prior. A group with "
            "a weight in `fixed`, one without terms and `reg` learn none.",
        ),
        (
            {**LEARNED, "weighting": {"kind": "uncertainty", "fixed": dict.fromkeys(GROUPS, 1.0)}},
            "`weighting.fixed` should leave at least one group with terms whose weight is learned. Found prior, cls, "
            "id, perc, reg.",
        ),
        (
            {"weighting": {"kind": "fixed", "weights": {"cls": 0.0}}},
            "`weighting.weights` should be above 0 for at least one group. Found {'cls': 0.0}.",
        ),
        (
            {"terms": {"cls": []}, "stages": [STAGE]},
            "`terms.cls` should hold a term where `cls` has a weight above 0. Found []. Give the weight 0.",
        ),
        (
            {**LEARNED, "stages": [STAGE, {**TWO, "condition": "hybrid"}]},
            "`stages.1.condition` should be 'label' or 'image' where weights are learned: they would undo the share by "
            "which a hybrid stage multiplies the losses that seek the class. Found 'hybrid'. Take another condition, "
            "or the weighting `staged`.",
        ),
        (
            {"stages": [STAGE, {**TWO, "trains": ["projector"], "weights": {"reg": 0.1, "cls": 0.0}}]},
            "`stages` should weigh another group than `reg` where they train `projector` alone: the regulariser does "
            "not depend on it, so nothing would train. Found `reg` alone in two.",
        ),
    ],
)
def test_terms_weights_and_stages_fit(values: dict[str, Any], fault: str) -> None:
    assert faults_of(values) == [fault]


@pytest.mark.parametrize(
    "values",
    [
        {"weighting": {"kind": "uncertainty", "fixed": {"cls": 0.3}}},  # what does not learn may be negative
        {**LEARNED, "terms": {**BOUNDED, "reg": []}},  # the default's weight of `reg` asks for no term
        {**LEARNED, "stages": [{**STAGE, "condition": "hybrid", "steps": 0}]},
        {"stages": [{**STAGE, "condition": "hybrid"}]},
        {"weighting": {"kind": "staged", "handover": 3}, "stages": [STAGE, {**TWO, "steps": 1}]},
        {"weighting": {"kind": "staged", "handover": 4}, "stages": [{**STAGE, "steps": 0}, TWO]},
        {"stages": [{**STAGE, "trains": ["projector", "embedding"], "weights": {"reg": 0.1}}]},
        {"stages": [{**STAGE, "trains": ["projector"], "weights": {"reg": 0.1, "prior": 0.1}}]},
    ],
)
def test_neighbours_of_what_is_refused_are_fine(values: dict[str, Any]) -> None:
    check_settings(values)


@pytest.mark.parametrize("classes", ["some", 0, -2, [], [-1], [1, "x"], None, True, {"a": 1}, 1.5])
def test_classes_are_one_fault_however_many_forms_there_are(classes: object) -> None:
    (fault,) = faults_of({"classes": classes})
    assert fault == (
        "`classes` should be 'all', a number of classes from 1, or a list of class indices from 0. "
        f"Found {classes!r}."
    )  # fmt: skip


def test_classes_are_named_once() -> None:
    assert faults_of({"classes": [4, 4]}) == ["`classes` should name each class once. Found [4, 4]."]


@pytest.mark.parametrize(
    "values",
    [
        {"stages": [{**STAGE, "steps": 0, "weights": {}}]},
        {"weighting": {"kind": "fixed"}, "stages": [{**STAGE, "weights": {}}]},
        {"weighting": {"kind": "uncertainty"}, "terms": BOUNDED, "stages": [{**STAGE, "weights": {}}]},
        {"stages": [{**STAGE, "trains": ["embedding"], "condition": "image", "steps": 0}]},
        {"stages": [{**STAGE, "trains": ["embedding", "lora"], "condition": "image"}]},
    ],
)
def test_a_stage_that_takes_no_step_or_is_weighed_elsewhere_is_fine(values: dict[str, Any]) -> None:
    assert len(check_settings(values).stages) == 1


def test_all_faults_at_once(tmp_path: Path) -> None:
    faults = file_faults(
        tmp_path / "bad.yaml",
        "sede: 1\nthreads: -1\nimage: {mode: dream}\nweighting: {kind: wild}\nstages: [{name: a, steps: x}]\n",
    )
    keys = [fault.split("`")[1] for fault in faults]
    assert sorted(keys) == sorted(
        ["sede", "threads", "image.mode", "weighting.kind"]
        + [f"stages.0.{key}" for key in ("trains", "steps", "rate", "weights")]
    )
    assert all(" should " in fault and " Found " in fault and fault.endswith(".") for fault in faults)


def test_the_error_counts_its_faults() -> None:
    with pytest.raises(SettingsError, match=r"^settings: 1 fault\n  `seed` should"):
        check_settings({"seed": -1})
    with pytest.raises(SettingsError, match=r"^settings: 2 faults\n"):
        check_settings({"seed": -1, "threads": 0})


def test_a_long_value_is_shortened() -> None:
    (fault,) = faults_of({"nme": "x" * 10_000})
    assert len(fault) < 250


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1\n", "should be a mapping of keys. Found a list."),
        ("just words", "should be a mapping of keys. Found a str."),
        ("seed: [1", "should be YAML. Found: "),
        ("seed: 1\nname: a\nseed: 2\n", "the key 'seed' is given a second time in line 3, column 1."),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("seed: !!python/name:os.system", "could not determine a constructor for the tag"),
        ("a: *unknown", "found undefined alias 'unknown'"),
        ("seed: 2020-99-99", "should be YAML. Found: "),
        (b"\xff\xfe\x00", "should be text in UTF-8."),
        (b"seed: 1\x00", "should be YAML. Found: "),
        (b"[" * 20_000, "values nested too deeply"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_settings(tmp_path: Path, text: str | bytes, words: str) -> None:
    (fault,) = file_faults(tmp_path / "bad.yaml", text)
    assert fault.startswith("the file should be ")
    assert words in fault


def test_yaml_that_would_grow_is_answered_shortly(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for above, below in zip("bcdefghij", "abcdefghi", strict=True):
        laughs += f"{above}: &{above} [{', '.join([f'*{below}'] * 10)}]\n"
    faults = file_faults(tmp_path / "bad.yaml", laughs)  # 10^10 words, were they written out
    assert len(faults) == 10
    assert sum(map(len, faults)) < 10_000


def test_yaml_that_holds_itself(tmp_path: Path) -> None:
    (fault,) = file_faults(tmp_path / "bad.yaml", "attack: &a {attack: *a}\n")
    assert fault.startswith("`attack.attack` should be left out: no such key.")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"none\.yaml: 1 fault\n  the file should be readable\. Found: No such file"
    ):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="the file should be readable"):
        load_settings(tmp_path)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing but words\n")
    assert load_settings(tmp_path / "empty.yaml") == load_settings(None) == InversionSettings()


# Overrides ------------------------------------------------------------------------------------------------------------


def test_overrides_reach_every_depth() -> None:
    settings = load_settings(
        None,
        {
            "seed": 4,
            "image.steps": 6,
            "stages.1.weights.id": 0.25,
            "judging.classifiers": {"one": {"kind": "trained", "folder": "a"}},
            "judging.classifiers.two": {"kind": "timm", "name": "resnet18"},
            "weighting": {"kind": "fixed"},
            "weighting.weights.cls": 3,
        },
    )
    assert settings.seed == 4
    assert settings.image.steps == 6
    assert [stage.weights["id"] for stage in settings.stages] == [1.0, 0.25]
    assert settings.stages[1].weights["prior"] == 1.5
    assert list(settings.judging.classifiers) == ["one", "two"]
    assert isinstance(settings.weighting, FixedWeights)
    assert settings.weighting.weights["cls"] == 3


def test_overrides_do_not_touch_what_an_alias_shares(tmp_path: Path) -> None:
    stage = "{name: a, trains: [lora], steps: 5, rate: 0.1, weights: &w {cls: 1.0}}"
    (tmp_path / "a.yaml").write_text(f"stages: [{stage}, {{name: b, trains: [lora], steps: 5, rate: 1, weights: *w}}]")
    settings = load_settings(tmp_path / "a.yaml", {"stages.0.weights.cls": 2.0})
    assert [stage.weights["cls"] for stage in settings.stages] == [2.0, 1.0]


def test_an_override_fills_an_empty_section(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("image:\n")
    assert load_settings(tmp_path / "a.yaml", {"image.steps": 3}).image.steps == 3


def test_overrides_that_lead_nowhere_are_told_with_all_other_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("threads: 0\nname: a\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "a.yaml", {"stages.2.steps": 1, "stages.x": 1, "name.first": 2, "seed": "x"})
    assert caught.value.faults == [
        "`stages.2.steps` should lead to a setting. Found a list of 2 where item `2` is looked for.",
        "`stages.x` should lead to a setting. Found a list of 2 where item `x` is looked for.",
        "`name.first` should lead to a setting. Found no keys where `first` is looked for.",
        "`seed` should be a valid integer. Found 'x'.",
        "`threads` should be greater than or equal to 1. Found 0.",
    ]


def test_an_unknown_override_is_a_fault() -> None:
    with pytest.raises(SettingsError, match=r"`image\.stpes` should be left out: no such key\. Found 3\."):
        load_settings(None, {"image.stpes": 3})


# Round trips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"classes": [3, 1]},
        {"classes": 7, "name": "a.b-c_d", "seed": 2**31},
        {
            "attack": {
                "target": {"kind": "pt2", "path": "m/x.pt2", "size": 112},
                "public": {**FOLDERS, "half": "training"},
            }
        },
        {"attack": {"target": {"kind": "torchvision", "name": "resnet18"}, "attributes": {"kind": "low_pass"}}},
        {"attack": {"attributes": {"kind": "harmonics"}}},
        {"judging": {"factors": None, "private": {**FOLDERS, "include": ["ä", "yes", "1e3"]}}},
        {"weighting": {"kind": "fixed", "weights": {"cls": 1e-300}}, "stages": [{**STAGE, "rate": 5e-05}]},
    ],
)
def test_what_is_dumped_reads_back_equal(values: dict[str, Any], tmp_path: Path) -> None:
    settings = check_settings(values)
    (tmp_path / "a.yaml").write_text(dump_settings(settings), encoding="utf-8")
    assert load_settings(tmp_path / "a.yaml") == settings


def test_a_dump_is_complete_and_plain() -> None:
    dumped = yaml.safe_load(dump_settings(InversionSettings()))
    assert list(dumped) == list(InversionSettings.model_fields)
    assert list(dumped["stages"][0]) == list(Stage.model_fields)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimiser: {clip: 1e-2}")  # a string in PyYAML's YAML 1.1
    assert load_settings(tmp_path / "a.yaml").optimiser.clip == 0.01


def test_a_section_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        InversionSettings().image.steps = 3  # type: ignore[misc]


# The trial ------------------------------------------------------------------------------------------------------------


def test_a_trial_bounds_and_never_enlarges() -> None:
    large = check_settings({"name": "big", "classes": list(range(50)), "sampling": {"keep": 16, "candidates": 64}})
    small = trial(large)
    assert small.name == "big-trial"
    assert small.classes == list(range(20))
    assert (small.sampling.keep, small.sampling.candidates) == (4, 8)
    assert [stage.steps for stage in small.stages] == [50, 50]
    assert small.image == large.image

    tiny = check_settings({"classes": 2, "stages": [STAGE], "sampling": {"keep": 1, "candidates": 1}})
    assert trial(tiny) == tiny


def test_no_attack_pulls_toward_the_private_embedding() -> None:
    with pytest.raises(SettingsError, match=r"`terms\.identity_anchor`.*'learned' or 'pseudo'"):
        check_settings({"terms": {"identity_anchor": "oracle"}})
