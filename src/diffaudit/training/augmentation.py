"""Random views of a training batch, each image's own. The audit's judges see other views than its target."""

import torch
from torch import Tensor, nn


def random_views(
    images: Tensor,
    generator: torch.Generator,
    *,
    shift: float = 0.06,
    zoom: float = 0.08,
    colour: float = 0.1,
    erase: float = 0.0,
) -> Tensor:
    """``(B, 3, H, W) in [0, 1]`` to the same: mirrored at random, moved, zoomed, recoloured, a patch erased at random.

    ``shift`` and ``zoom`` are shares of the picture, ``colour`` the spread of gain and offset, ``erase`` the chance of
    a grey patch of a quarter of the picture's side.
    """
    count, _, height, width = images.shape
    draw = torch.rand(count, 12, generator=generator)
    signed = 2 * draw - 1
    scale = 1 + zoom * signed[:, 0]
    mirror = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    rows = torch.stack([scale * mirror, zero, 2 * shift * signed[:, 2], zero, scale, 2 * shift * signed[:, 3]], dim=1)
    grid = nn.functional.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    views = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    views = views * (1 + colour * signed[:, 4:7, None, None]) + 0.5 * colour * signed[:, 7:8, None, None]
    if erase:
        across, down = (torch.arange(side) / side for side in (width, height))
        hit_x = (across[None] - draw[:, 8:9] * 0.75).mul(8).sub(1).abs() < 1
        hit_y = (down[None] - draw[:, 9:10] * 0.75).mul(8).sub(1).abs() < 1
        patch = hit_y[:, None, :, None] & hit_x[:, None, None, :] & (draw[:, 10] < erase)[:, None, None, None]
        views = views.masked_fill(patch, 0.5)
    return views.clamp(0, 1)
