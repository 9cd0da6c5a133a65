import torch

from diffaudit.inversion.sources import spread_rows


def test_each_next_row_is_the_farthest_from_those_chosen() -> None:
    """On a line from 0 to 8, whatever comes first, then the farther end, then the middle of the widest gap."""
    line = torch.arange(9.0)[:, None]
    for seed in range(20):
        first, second, third = spread_rows(line, 3, torch.Generator().manual_seed(seed)).tolist()
        assert second == (8 if first < 4 else 0)
        nearest = [min(abs(row - first), abs(row - second)) for row in range(9)]
        assert nearest[third] == max(nearest)


def test_rows_differ_even_where_pictures_are_alike() -> None:
    rows = spread_rows(torch.zeros(6, 2), 6, torch.Generator().manual_seed(0))
    assert sorted(rows.tolist()) == list(range(6))


def test_the_seed_decides() -> None:
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    one, again, other = (spread_rows(values, 5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
