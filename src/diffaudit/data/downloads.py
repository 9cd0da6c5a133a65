"""Public face sets as image folders, downloaded through scikit-learn when, and only when, one of these is called."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffaudit.data.folders import ImageFolder, open_folder
from diffaudit.errors import InvalidSetting, MissingExtra

# The central square of the 250 x 250 pictures, which holds the whole head.
LFW_CROP = slice(61, 189)


def fetch_olivetti(root: Path | str, *, cache: Path | str | None = None) -> ImageFolder:
    """Return the Olivetti faces: 40 people, 10 grey pictures of 64 x 64 each, written to ``root/olivetti``.

    AT&T Laboratories Cambridge, taken 1992 to 1994: F. Samaria and A. Harter, "Parameterisation of a stochastic model
    for human face identification" (1994). A folder that is there already is opened, not downloaded again.

    Args:
        root: where the folder goes.
        cache: scikit-learn's own store of downloads; None for its default, ``~/scikit_learn_data``.

    Raises:
        MissingExtra: without scikit-learn.

    >>> fetch_olivetti("data")  # doctest: +SKIP
    """
    target = Path(root) / "olivetti"
    if not target.exists():
        try:
            from sklearn.datasets import fetch_olivetti_faces
        except ImportError as error:
            raise MissingExtra("scikit-learn", "datasets") from error
        faces = fetch_olivetti_faces(data_home=cache)
        people = [f"person-{number:02d}" for number in range(1, int(faces.target.max()) + 2)]
        _write(target, faces.images, faces.target, people)
    return open_folder(target)


def fetch_lfw(
    root: Path | str, *, min_photos: int = 10, size: int = 64, cache: Path | str | None = None
) -> ImageFolder:
    """Return Labeled Faces in the Wild (funneled): people with ``min_photos`` or more, in ``root/lfw-<min>-<size>``.

    Colour, the central 128 x 128 of each picture at ``size`` x ``size``. G. B. Huang et al., "Labeled Faces in the
    Wild" (2007). With 10 photographs or more there are 158 people and 4324 pictures; the download has about 240 MB.

    Args:
        root: where the folder goes; one that is there already is opened, not downloaded again.
        min_photos: people with fewer photographs are left out.
        size: side of the pictures in pixels.
        cache: scikit-learn's own store of downloads; None for its default, ``~/scikit_learn_data``.

    Raises:
        InvalidSetting: for a number of photographs below 1 or a size outside [16, 128].
        MissingExtra: without scikit-learn.

    >>> fetch_lfw("data", min_photos=30)  # doctest: +SKIP
    """
    side = LFW_CROP.stop - LFW_CROP.start
    if min_photos < 1:
        raise InvalidSetting("min_photos", "be a positive integer", min_photos)
    if not 16 <= size <= side:
        raise InvalidSetting("size", f"be between 16 and {side} pixels", size)
    target = Path(root) / f"lfw-{min_photos}-{size}"
    if not target.exists():
        try:
            from sklearn.datasets import fetch_lfw_people
        except ImportError as error:
            raise MissingExtra("scikit-learn", "datasets") from error
        faces = fetch_lfw_people(
            data_home=cache,
            min_faces_per_person=min_photos,
            slice_=(LFW_CROP, LFW_CROP),
            resize=size / side,
            color=True,
        )
        _write(target, faces.images, faces.target, [str(name).replace(" ", "_") for name in faces.target_names])
    return open_folder(target)


def _write(target: Path, images: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str]) -> None:
    """Writes ``images`` in [0, 1] as ``target/<name>/<number>.png``. A killed writer leaves no ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    counts = [0] * len(names)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unfinished = Path(scratch) / target.name
        for image, label in zip(images, labels.tolist(), strict=True):
            counts[label] += 1
            path = unfinished / names[label] / f"{counts[label]:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 255).round().clip(0, 255).astype(np.uint8)).save(path)
        unfinished.rename(target)
