"""Feature maps of a program of ``torch.export``, so that a network of yours can be the ruler of what is seen."""

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.exported import LAST_LAYERS, promised_shape, read_program
from diffaudit.models.perceptual import PerceptualFeatures

PADS = {torch.ops.aten.pad.default, torch.ops.aten.constant_pad_nd.default}
"""What enlarges a map for the next layer's sake: no side of its own."""


class ExportedMaps(nn.Module):
    """A loaded program ``(B, 3, H, W)``, cut to answer with feature maps; deaf to :meth:`train`.

    Args:
        program: the module of a loaded ``torch.export.ExportedProgram``; it is changed.

    Raises:
        InvalidSetting: where it has no feature maps.
    """

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        self.program = program
        answer_with_maps(program)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "ExportedMaps":
        """Nothing: a program was exported in one mode and stays in it."""
        return self

    def maps(self, images: Tensor) -> list[Tensor]:
        """From fine to coarse, each ``(B, C_l, H_l, W_l)``."""
        return list(self.program(images))


def answer_with_maps(program: fx.GraphModule) -> None:
    """Makes a program answer with the last map of every size, in place; what comes after them is cut off.

    Maps are what the first layer and all after it make, up to the input of the last layer, which answers. A padded map
    counts as none, nor does one of a single place: an average.

    Raises:
        InvalidSetting: where nothing is left.
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    layers = [place for place, node in enumerate(nodes) if node.target in LAST_LAYERS]
    last: dict[tuple[str, ...], fx.Node] = {}
    for node in nodes[layers[0] : layers[-1]] if layers else []:
        # As text, for a size may be a symbol.
        channels_and_size = [str(side) for side in promised_shape(node)[1:]]
        if len(channels_and_size) == 3 and channels_and_size[1:] != ["1", "1"] and node.target not in PADS:
            last[tuple(channels_and_size[1:])] = node
    if not last:
        raise InvalidSetting("path", "be a program whose layers make maps (B, C, h, w)", f"{len(layers)} layers")
    program.graph.output_node().args = (tuple(last.values()),)
    program.graph.set_codegen(fx.graph.CodeGen())
    program.graph.eliminate_dead_code()
    program.recompile()


def exported_perceptual(path: Path, *, size: int, allow_code: bool) -> PerceptualFeatures:
    """The feature maps of a ``.pt2`` file's program, which takes ``(B, 3, size, size)`` in [0, 1] for any ``B``.

    Raises:
        InvalidSetting: no such file, not a program, one without maps, or not one of images of that size.
        UnsafeArchive: the file could run code and ``allow_code`` is false; see :mod:`diffaudit.models.archives`.
    """
    program, _ = read_program(path, allow_code=allow_code)
    features = PerceptualFeatures(ExportedMaps(program), size=size)
    try:
        with torch.no_grad():
            features(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        rule = f"take images (B, 3, {size}, {size}) for any B"
        raise InvalidSetting("path", rule, str(path), f"Is `size` right? {error}") from error
    return features
