"""What cameras, files and obstacles do to a photo: blur, noise, JPEG artefacts, holes.

Photos are (H, W, 3) uint8 RGB; masks are not touched. No function changes its input. Random choices come from the
generator that is handed in, and the bytes are the same on every processor.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

Photo = npt.NDArray[np.uint8]

#: Values that get their noise at a time: a multiple of four, and few enough for all of it to stay in the cache.
_BLOCK = 1 << 17


def blur(photo: Photo, sigma: float) -> Photo:
    """Blur by a Gaussian with a standard deviation of ``sigma`` pixels; 0 returns the photo itself.

    OpenCV's fixed-point filter: the kernel ends at three sigma and its weights are multiples of 1/256. On photos the
    result is within 2 levels of the exact Gaussian (0.3 on average), within 4 on any picture. The picture is mirrored
    at its edges, as in `geometry.warp`. Costs grow with ``sigma``. Raises `ValueError` if it is negative.
    """
    if not sigma >= 0:
        raise ValueError(f"a blur of {sigma} pixels is negative")
    if sigma == 0:
        return photo
    # The accurate hint keeps the fixed-point filter, whatever libraries OpenCV was built with.
    blurred = cv2.GaussianBlur(photo, (0, 0), sigma, borderType=cv2.BORDER_REFLECT, hint=cv2.ALGO_HINT_ACCURATE)
    return np.asarray(blurred, np.uint8)


def add_noise(photo: Photo, sigma: float, random: np.random.Generator) -> Photo:
    """Add Gaussian noise, independent for each pixel and channel, standard deviation ``sigma`` levels; then clip.

    Noise is a whole number of levels, drawn by 16 random bits through `noise_table`: its distribution function is
    within 2**-17 of the rounded Gaussian's. Draws one 64-bit number per four values; none for a ``sigma`` of 0, which
    returns the photo itself. Raises `ValueError` if ``sigma`` is not within 0 and 255.
    """
    if not 0 <= sigma <= 255:
        raise ValueError(f"noise of {sigma} levels is not within 0 and 255")
    if sigma == 0:
        return photo
    table, levels = noise_table(sigma), photo.reshape(-1)
    noisy = np.empty_like(levels)
    for start in range(0, levels.size, _BLOCK):
        part = levels[start : start + _BLOCK]
        draws = random.integers(0, 2**64, size=(part.size + 3) // 4, dtype=np.uint64).view(np.uint16)
        noise = cv2.LUT(draws[: part.size, np.newaxis], table)[:, 0]
        np.add(part, noise, out=noise)
        noisy[start : start + _BLOCK] = np.clip(noise, 0, 255, out=noise)
    return noisy.reshape(photo.shape)


def noise_table(sigma: float) -> npt.NDArray[np.int16]:
    """Noise in levels for each of 2**16 equally likely numbers, (65536,) int16, ascending: a Gaussian's quantiles.

    Level k has as many entries as a Gaussian of ``sigma`` has probability in [k - 0.5, k + 0.5), rounded to 2**-16;
    what is beyond 255 counts as 255, for it clips any photo.
    """
    reach = min(255, math.ceil(5 * sigma))
    scale = sigma * math.sqrt(2)
    below = [round(32768 * math.erfc((0.5 - level) / scale)) for level in range(1 - reach, reach + 1)]
    counts = np.diff([0, *below, 65536])
    return np.repeat(np.arange(-reach, reach + 1, dtype=np.int16), counts)


def jpeg_artifacts(photo: Photo, quality: int) -> Photo:
    """What a baseline JPEG of ``quality`` (1 to 100, libjpeg's scale, 4:2:0) makes of ``photo``.

    Below 96 TurboJPEG encodes by its faster whole-number DCT. Measured on photos, its mean error is larger than the
    exact DCT's by at most 1 % up to quality 75, 6 % at 90, 26 % at 95.
    Raises `ValueError` for a quality outside its range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"a JPEG quality of {quality} is not within 1 and 100")
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(photo), quality, "RGB", "420")
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False), np.uint8)


def drop_rectangles(photo: Photo, count: int, size: float, random: np.random.Generator, fill: int = 0) -> Photo:
    """A copy of ``photo`` with ``count`` rectangles filled with grey of level ``fill`` (0 to 255).

    Height and width of each are ``size`` (above 0, at most 1) times the photo's, rounded, one pixel at least. Centres
    are uniform over the photo, so that rectangles may reach beyond it and overlap: T. DeVries and G. W. Taylor,
    Improved Regularization of Convolutional Neural Networks with Cutout (2017), with several holes. Draws two numbers
    for each. Raises `ValueError` for parameters outside their range.
    """
    if not (count >= 0 and 0 < size <= 1 and 0 <= fill <= 255):
        raise ValueError(f"{count} rectangles of size {size} and level {fill} are out of range")
    height, width = photo.shape[:2]
    rows, columns = max(1, round(size * height)), max(1, round(size * width))
    dropped = photo.copy()
    for u, v in random.random((count, 2)).tolist():
        top, left = int(u * height) - rows // 2, int(v * width) - columns // 2
        dropped[max(top, 0) : top + rows, max(left, 0) : left + columns] = fill
    return dropped
