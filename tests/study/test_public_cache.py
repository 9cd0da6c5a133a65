from pathlib import Path

import pytest
import torch

from diffaudit import build
from diffaudit.inversion.attacker import PublicPictures
from diffaudit.settings import InversionSettings, ProceduralFaces
from diffaudit.study.public_cache import PublicCache, public_key


def test_what_was_seen_is_remembered_to_the_bit(
    tiny_settings: InversionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, attack = PublicCache(tmp_path), tiny_settings.attack
    models = build.build_classifier(attack.target), build.build_encoder(attack.encoder)
    first = cache(attack.public, *models)
    monkeypatch.setattr(build, "look_at_public", None)  # a second look would fail
    again = cache(attack.public, *models)
    for name, value in vars(first).items():
        assert torch.equal(getattr(again, name), value)
    assert len(list(tmp_path.iterdir())) == 1


def test_features_that_are_hidden_stay_hidden(
    tiny_settings: InversionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = tiny_settings.attack
    models = build.build_classifier(attack.target), build.build_encoder(attack.encoder)
    seen = PublicPictures(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 2), None, torch.ones(1, 2))
    monkeypatch.setattr(build, "look_at_public", lambda *_: seen)
    cache = PublicCache(tmp_path)
    assert cache(attack.public, *models).features is None
    assert cache(attack.public, *models).features is None


def test_the_key_knows_pictures_models_and_threads(tiny_settings: InversionSettings) -> None:
    attack = tiny_settings.attack
    target, encoder = build.build_classifier(attack.target), build.build_encoder(attack.encoder)
    other_target = build.build_classifier(next(iter(tiny_settings.judging.classifiers.values())))  # type: ignore[arg-type]
    keys = {
        public_key(attack.public, target, encoder),
        public_key(ProceduralFaces(identities=13), target, encoder),
        public_key(attack.public, other_target, encoder),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        keys.add(public_key(attack.public, target, encoder))
    finally:
        torch.set_num_threads(threads)
    assert len(keys) == 4
