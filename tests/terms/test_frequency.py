import builtins
import importlib.util
from typing import Any, Literal

import pytest
import pywt
import torch

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.terms import Frequency, laplacian_distance, wavelet_distance


def test_laplacian_by_hand() -> None:
    image = torch.zeros(1, 3, 7, 7)
    dot = image.clone()
    dot[0, :, 3, 3] = 1.0
    # The kernel of 3 x 3 ones with -8 in the middle, over 16: |-8| + 8 in all.
    torch.testing.assert_close(laplacian_distance(dot, image), torch.tensor([1 / 49]))
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 3, 3] = 0.5
    torch.testing.assert_close(laplacian_distance(dot, image, mask), torch.tensor([0.5]))
    assert laplacian_distance(image + 0.3, image).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("detail", ["laplacian", "wavelet"])
def test_frequency_of_a_candidate_with_a_coarser_mask(detail: Literal["laplacian", "wavelet"]) -> None:
    image, source, mask = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(2, 1, 4, 4)
    logits, target = torch.zeros(2, 2), torch.zeros(2, dtype=torch.long)
    candidate = Candidate(image=image, source=source, target=target, logits=logits, mask=mask)
    distance = {"laplacian": laplacian_distance, "wavelet": wavelet_distance}[detail]
    assert torch.equal(Frequency(detail=detail)(candidate), distance(image, source, mask))


def test_wavelets_are_those_of_the_reference() -> None:
    """PyWavelets, band by band."""
    after, before = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    _, second, first = pywt.wavedec2((after - before).numpy(), "haar", mode="zero", level=2)
    bands = [abs(band).mean((1, 2, 3)) / 4 for band in second] + [abs(band).mean((1, 2, 3)) / 2 for band in first]
    expected = torch.stack([torch.tensor(band) for band in bands]).mean(0)
    torch.testing.assert_close(wavelet_distance(after, before), expected)


def test_the_wavelets_bound_is_that_of_one_band() -> None:
    """A board of black and white against its negative: the diagonal detail of level 1 alone, at its full reach."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    image = board.float().expand(1, 3, 8, 8)
    torch.testing.assert_close(wavelet_distance(image, 1 - image), torch.tensor([1 / 6]))
    assert wavelet_distance(image + 0.3, image).item() == pytest.approx(0, abs=1e-7)


def test_what_lies_outside_the_mask_does_not_count() -> None:
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    dot = image.clone()
    dot[..., 0, 0] = 1.0
    mask[..., 4:] = 1.0
    assert wavelet_distance(dot, image, mask).item() == 0
    assert wavelet_distance(dot, image, 1 - mask).item() == pytest.approx(2 * wavelet_distance(dot, image).item())


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(2, 3, 4, 4)
    with pytest.raises(InvalidSetting, match="`mask` should be one plane per image"):
        laplacian_distance(image, image, image)
    with pytest.raises(InvalidSetting, match="`detail` should be laplacian or wavelet"):
        Frequency(detail="fourier")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="`after` should have sides that 4 divides"):
        wavelet_distance(image[..., :3], image[..., :3])
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ptwt":
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="wavelets"):
        wavelet_distance(image, image)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="wavelets"):
        Frequency(detail="wavelet")
    assert Frequency().detail == "laplacian"
