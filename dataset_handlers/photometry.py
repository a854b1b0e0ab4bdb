"""Changes of light as one lookup table."""

import cv2
import numpy as np
import numpy.typing as npt


def exposure_table(stops: float) -> npt.NDArray[np.uint8]:
    """256 output levels for an exposure change in photographic stops, applied to linear light.

    Levels are decoded and encoded by the sRGB transfer function (IEC 61966-2-1); 0 stops is the identity.
    """
    level = np.arange(256, dtype=np.float64) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    lit = np.clip(linear * 2.0**stops, 0, 1)
    encoded = np.where(lit <= 0.0031308, lit * 12.92, 1.055 * lit ** (1 / 2.4) - 0.055)
    levels: npt.NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return levels


def expose(photo: npt.NDArray[np.uint8], stops: float) -> npt.NDArray[np.uint8]:
    """``photo`` (H, W, 3) uint8 sRGB with its exposure changed by ``stops``."""
    return np.asarray(cv2.LUT(photo, exposure_table(stops)), np.uint8)
