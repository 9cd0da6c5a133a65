"""Programs of ``torch.export`` as classifiers and identity encoders: graph and weights in one file, no code."""

import hashlib
import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from diffaudit.errors import InvalidSetting, UnsafeArchive
from diffaudit.models.archives import harmless_copy
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder

LAST_LAYERS = {
    torch.ops.aten.linear.default: 0,
    torch.ops.aten.addmm.default: 1,
    torch.ops.aten.conv2d.default: 0,
    torch.ops.aten.conv2d.padding: 0,
    torch.ops.aten.convolution.default: 0,
}
"""Linear layers and convolutions, with the position of the argument that is their input."""


class ExportedNetwork(nn.Module):
    """A loaded program ``(B, 3, H, W) -> (B, C)``, deaf to :meth:`train` and :meth:`eval`, which programs refuse.

    Args:
        program: the module of a loaded ``torch.export.ExportedProgram``; it is made to answer with features too.
    """

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        self.program = program
        self.no_features = answer_with_features(program)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Nothing: a program was exported in one mode and stays in it."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.program(images) if self.no_features else self.program(images)[0]
        return outputs

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, C)`` and features ``(B, P)`` in one pass; maps ``(B, P, h, w)`` are averaged over space."""
        outputs, features = self.program(images)
        return outputs, features.mean((2, 3)) if features.ndim == 4 else features


def exported_classifier(path: Path, *, size: int, allow_code: bool) -> Classifier:
    """The classifier in a ``.pt2`` file, which takes ``(B, 3, size, size)`` in [0, 1] for any ``B``.

    Penultimate features are the input of the last linear layer or convolution; where that has not as many outputs
    as there are classes, ``no_features`` of the classifier says so.

    Raises:
        InvalidSetting: no such file, not a program, or not one of images of that size to logits.
        UnsafeArchive: the file could run code and ``allow_code`` is false; see :mod:`diffaudit.models.archives`.
    """
    network, fingerprint, _ = _opened(path, size, allow_code)
    both = None if network.no_features else network.both
    return Classifier(network, size=size, fingerprint=fingerprint, both=both, no_features=network.no_features)


def exported_encoder(path: Path, *, size: int, allow_code: bool) -> IdentityEncoder:
    """The identity encoder in a ``.pt2`` file, as :func:`exported_classifier`; its outputs are normalised."""
    network, fingerprint, outputs = _opened(path, size, allow_code)
    return IdentityEncoder(network, size=size, dimension=outputs, fingerprint=fingerprint)


def answer_with_features(program: fx.GraphModule) -> str | None:
    """Makes a program that answers ``outputs`` answer ``(outputs, input of the last layer)``, in place.

    Returns None, or the reason why the program was left as it was.
    """
    layers = [node for node in program.graph.nodes if node.op == "call_function" and node.target in LAST_LAYERS]
    if not layers:
        return "the program has no linear layer or convolution whose input could serve"
    output = program.graph.output_node()
    answers = pytree.tree_leaves(output.args[0])
    inputs = layers[-1].args[LAST_LAYERS[layers[-1].target]]
    given, found, axes = promised_shape(answers[0]), promised_shape(layers[-1]), len(promised_shape(inputs))
    if len(answers) != 1 or len(given) != 2 or found[1:2] != given[1:]:
        return f"the program's last linear layer or convolution gives {found}, its output is {given}"
    if axes not in (2, 4):
        return f"the input of the program's last layer has {axes} axes, neither (B, P) nor (B, P, h, w)"
    output.args = ((answers[0], inputs),)
    program.graph.set_codegen(fx.graph.CodeGen())
    program.recompile()
    return None


def read_program(path: Path, *, allow_code: bool, setting: str = "path") -> tuple[fx.GraphModule, str]:
    """The program in a ``.pt2`` file, called ``setting`` where it is refused, and the SHA-256 of the file.

    Raises:
        InvalidSetting: no such file, or not a program.
        UnsafeArchive: the file could run code and ``allow_code`` is false; see :mod:`diffaudit.models.archives`.
    """
    if not path.is_file():
        raise InvalidSetting(setting, "be a .pt2 file", str(path), "There is no such file.")
    content = path.read_bytes()
    return _loaded(path, content, allow_code, setting), hashlib.sha256(content).hexdigest()


def _opened(path: Path, size: int, allow_code: bool) -> tuple[ExportedNetwork, str, int]:
    """The network, the SHA-256 of its file and the number of its outputs, found by a dry run."""
    program, fingerprint = read_program(path, allow_code=allow_code)
    network = ExportedNetwork(program)
    rule = f"take images (B, 3, {size}, {size}) for any B and answer with one tensor (B, C)"
    try:
        with torch.no_grad():
            outputs = network(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise InvalidSetting("path", rule, str(path), f"Is `size` right? {error}") from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 2:
        raise InvalidSetting("path", rule, str(path), f"It gives {getattr(outputs, 'shape', type(outputs))}.")
    return network, fingerprint, outputs.shape[1]


def _loaded(path: Path, content: bytes, allow_code: bool, setting: str) -> fx.GraphModule:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            source = io.BytesIO(content) if allow_code else harmless_copy(archive)
        # Guards would be compiled from strings of the file; the shapes of inputs are checked without them.
        return torch.export.load(source).module(check_guards=False)
    except UnsafeArchive:
        raise
    except Exception as error:
        rule = "be an archive that torch.export.save wrote and this torch can read"
        raise InvalidSetting(setting, rule, str(path), f"{type(error).__name__}: {error}") from error


def promised_shape(node: object) -> tuple[int, ...]:
    """The shape that the graph promises for a node; empty where it promises none."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()
