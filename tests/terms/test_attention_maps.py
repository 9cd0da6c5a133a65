import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.errors import InvalidSetting
from diffaudit.terms.attention_maps import draw_heads, head_mean, label_map, label_shares, masked_mean, resized_map


def test_a_second_softmax_makes_every_map_nearly_even() -> None:
    # One place looks at the label alone, the other not at all.
    maps = torch.zeros(1, 2, 30)
    maps[0, 0, 3], maps[0, 1, 0] = 1.0, 1.0
    tokens = (torch.arange(30) == 3)[None]
    fault = label_map(maps.softmax(2), tokens)
    assert fault.max() - fault.min() < 0.06
    assert label_map(maps, tokens).tolist() == [[1.0, 0.0]]


def test_shares_do_not_depend_on_the_prompts_length_and_maps_do() -> None:
    scores = torch.randn(1, 4, 3, dtype=torch.float64)
    further = torch.zeros(1, 4, 20, dtype=torch.float64)
    short, long = scores.softmax(2), torch.cat([scores, further], 2).softmax(2)
    assert (short[..., 0] - long[..., 0]).abs().mean() > 0.1  # the same attention, and a distance all the same
    found = [label_shares(maps[..., 0], maps[..., 1]) for maps in (short, long)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_ragged_maps_come_to_one_grid_before_they_are_averaged() -> None:
    fine, coarse = torch.zeros(1, 16, 16), torch.zeros(1, 8, 8)
    fine[..., :8], coarse[..., :4] = 1.0, 1.0  # both look at the left half
    layers = [fine.flatten(1), coarse.flatten(1)]
    with pytest.raises(RuntimeError, match="equal size"):
        torch.stack(layers)
    # Resized as one row of places, as it circulates, lines of the picture are mixed.
    fault = F.interpolate(layers[1][:, None], 100, mode="linear")[0, 0]
    assert fault.view(10, 10).std(0).max() > 0.3
    ours = torch.stack([resized_map(layer, 4) for layer in layers])
    assert torch.equal(ours[0], ours[1])
    assert ours[0].view(4, 4).tolist() == [[1.0, 1.0, 0.0, 0.0]] * 4


@pytest.mark.parametrize(("found", "side"), [(8, 4), (8, 2), (4, 8), (2, 8), (4, 4)])
def test_the_mean_stays_where_one_side_divides_the_other(found: int, side: int) -> None:
    maps = torch.rand(3, found * found, dtype=torch.float64)
    resized = resized_map(maps, side)
    assert resized.shape == (3, side * side)
    torch.testing.assert_close(resized.mean(1), maps.mean(1))


def test_heads_are_dropped_by_chance_and_never_all() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([draw_heads(3, generator, keep=0.9) for _ in range(4000)])
    assert draws.float().mean().item() == pytest.approx(0.9, abs=0.01)
    rare = torch.stack([draw_heads(3, generator, keep=1e-9) for _ in range(3000)])
    assert rare.sum(1).unique().tolist() == [1]
    assert rare.float().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.04)
    assert draw_heads(3, generator, keep=1.0).all()


def test_mean_over_heads_keeps_probabilities() -> None:
    maps = torch.randn(2, 3, 4, 5).softmax(3)
    found = head_mean(maps, (1.0, 2.0, 0.5), torch.tensor([True, True, False]))
    torch.testing.assert_close(found, (maps[:, 0] + 2 * maps[:, 1]) / 3)
    torch.testing.assert_close(found.sum(2), torch.ones(2, 4))


def test_each_image_has_its_own_tokens() -> None:
    maps = torch.tensor([[[0.1, 0.2, 0.7]]]).expand(2, 1, 3)
    tokens = torch.tensor([[True, True, False], [False, False, True]])
    assert label_map(maps, tokens).flatten().tolist() == pytest.approx([0.3, 0.7])


def test_a_mask_of_zeros_counts_nothing() -> None:
    assert masked_mean(torch.ones(1, 4), torch.zeros(1, 4)).item() == 0


def broken() -> list[tuple[object, str]]:
    maps, square = torch.ones(1, 2, 4, 3), torch.ones(1, 4)
    return [
        (lambda: draw_heads(0, torch.Generator()), "count"),
        (lambda: draw_heads(2, torch.Generator(), keep=0.0), "keep"),
        (lambda: head_mean(maps[0]), "maps"),
        (lambda: head_mean(maps, (1.0, 0.0)), "weights"),
        (lambda: head_mean(maps, kept=torch.ones(2)), "kept"),
        (lambda: label_map(maps, torch.ones(1, 3).bool()), "maps"),
        (lambda: label_map(maps[:, 0], torch.ones(1, 3)), "tokens"),
        (lambda: label_shares(square, square[:, :2]), "true"),
        (lambda: resized_map(square[:, :3], 2), "maps"),
        (lambda: resized_map(square, 0), "side"),
        (lambda: masked_mean(square, square[:, :2]), "mask"),
    ]


@pytest.mark.parametrize(("call", "name"), broken())
def test_refusals(call: object, name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"`{name}` should"):
        call()  # type: ignore[operator]


def test_shares_by_hand() -> None:
    found: Tensor = label_shares(torch.tensor([[0.2, 0.0, 0.1]]), torch.tensor([[0.2, 0.3, 0.0]]))
    assert found.flatten().tolist() == pytest.approx([0.5, 0.0, 1.0], abs=1e-5)
