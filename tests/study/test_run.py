"""What a run asks of PyTorch, and that it leaves PyTorch as it was."""

import pytest
import torch

from diffaudit.configurations import settings_path
from diffaudit.settings import load_settings
from diffaudit.study.run import reproducible


def asked() -> tuple[bool, bool, int]:
    filled: bool = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    return torch.are_deterministic_algorithms_enabled(), filled, torch.get_num_threads()


def test_algorithms_are_deterministic_and_new_memory_is_not_filled() -> None:
    settings = load_settings(settings_path("quick"), {"threads": 1})

    with reproducible(settings):
        assert asked() == (True, False, 1)


def test_what_was_before_comes_back_also_after_an_error() -> None:
    settings = load_settings(settings_path("quick"), {"threads": torch.get_num_threads() + 1})
    before = asked()

    with pytest.raises(RuntimeError, match="broken off"), reproducible(settings):
        raise RuntimeError("broken off")

    assert asked() == before
