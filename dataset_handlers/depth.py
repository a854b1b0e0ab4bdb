"""Depth maps of photos: how far off everything is.

``NAME.npy``, (H, W) of numbers, or ``NAME.png``, grey of 8 or 16 bits. Depth is along the camera's axis, larger is
farther, in any unit; what is not above 0 and finite is unknown. A map shows what its photo shows (turned as its EXIF
orientation says), in any resolution.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import BadSampleError
from .images import MAX_PIXELS
from .transforms.geometry import Geometry, Size, compose, scaling

Depth = npt.NDArray[Any]

#: In the order in which they are looked for.
_ENDINGS = (".npy", ".png")
_GREY = {"L", "I", "I;16", "I;16B", "I;16L"}
#: How far the proportions of a map and its photo may differ, for sizes are whole numbers.
_SAME_PROPORTIONS = 0.02


def depth_file(folder: Path, photo: str) -> Path | None:
    """The depth map of a photo by its name; None if there is none."""
    found = (folder / f"{Path(photo).stem}{ending}" for ending in _ENDINGS)
    return next((path for path in found if path.is_file()), None)


def decode_depth(data: bytes, name: str, photo: Size) -> Depth:
    """A depth map, (H, W) of floats or whole numbers, for a photo of (height, width).

    Raises `BadSampleError` for what is none, or has other proportions than the photo.
    """
    try:
        depth = _from_npy(data) if name.endswith(".npy") else _from_png(data)
    except Exception as error:  # the boundary: what is in such a file is anyone's guess
        raise BadSampleError(f"{name}: is no depth map ({type(error).__name__})") from error
    height, width = depth.shape
    if abs(height * photo[1] / (width * photo[0]) - 1) > _SAME_PROPORTIONS:
        raise BadSampleError(
            f"{name}: a depth map of {width}×{height} pixels, the photo has {photo[1]}×{photo[0]}; "
            "their proportions must agree"
        )
    return depth


def _from_npy(data: bytes) -> Depth:
    depth = np.load(io.BytesIO(data), allow_pickle=False)
    if depth.ndim != 2 or depth.dtype.kind not in "fiu" or not depth.size:
        raise ValueError("not (H, W) of numbers")
    return np.asarray(depth)


def _from_png(data: bytes) -> Depth:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
        if opened.mode not in _GREY or opened.width * opened.height > MAX_PIXELS:
            raise ValueError("not grey, or too large")
        return np.asarray(opened)


def depth_through(depth: Depth, photo: Size, geometry: Geometry) -> npt.NDArray[np.float64]:
    """``depth`` of a photo (height, width) where ``geometry``, of scales and shifts alone, shows it; nearest neighbour.

    Means over the edges of things would be depths where nothing is.
    """
    scales = scaling(depth.shape[1] / photo[1], depth.shape[0] / photo[0])
    back = compose(scales, geometry.back).tolist()
    rows, columns = (
        np.clip(np.floor(back[axis][axis] * (np.arange(count) + 0.5) + back[axis][2]), 0, length - 1).astype(np.intp)
        for axis, count, length in ((1, geometry.size[0], depth.shape[0]), (0, geometry.size[1], depth.shape[1]))
    )
    return np.asarray(depth[rows[:, None], columns], np.float64)
