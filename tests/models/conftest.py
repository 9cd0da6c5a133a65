import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn


class TinyNetwork(nn.Module):
    """Means of the channels, scaled, through a linear layer whose weights one can multiply in one's head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]]))
            self.head.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(10 * self.norm(images).mean((2, 3)))
        return logits


def export(model: nn.Module, path: Path, *, size: int = 8, keep_inputs: bool = False) -> Path:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model.eval(), (torch.rand(3, 3, size, size),), dynamic_shapes=({0: batch},))
    if not keep_inputs:
        program.example_inputs = None
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="session")
def tiny_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(TinyNetwork(), tmp_path_factory.mktemp("program") / "tiny.pt2")


@pytest.fixture(scope="session")
def export_program() -> Callable[..., Path]:
    return export


@pytest.fixture(scope="session")
def shared_models() -> Path:
    repository = Path(__file__).parents[2]
    data = Path(os.environ.get("DIFFAUDIT_SHARED_DATA", repository.parent / "shared" / "data"))
    if not (data / "models").is_dir():
        pytest.skip(f"no shared models at {data}; set DIFFAUDIT_SHARED_DATA")
    return data / "models"
