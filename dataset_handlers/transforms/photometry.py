"""Changes of light and colour: one lookup table for tone, whole numbers for saturation, hue and luma.

Photos are (H, W, 3) uint8 RGB, sRGB levels. No function changes its input; a neutral parameter gives back the photo
itself. The bytes are the same on every processor: OpenCV's own way back from HSV is not used, because it fuses
products with sums where the processor can.
"""

import cv2
import numpy as np
import numpy.typing as npt

Photo = npt.NDArray[np.uint8]
Table = npt.NDArray[np.uint8]

#: More colour than this only clips. The bound also keeps the blend exact, see `adjust_saturation`.
MAX_SATURATION = 8.0

_LEVEL = np.arange(256, dtype=np.float64) / 255
# The sRGB transfer function, IEC 61966-2-1: light of each level.
_LIGHT = np.where(_LEVEL <= 0.04045, _LEVEL / 12.92, ((_LEVEL + 0.055) / 1.055) ** 2.4)


def tone_table(
    exposure: float = 0.0, brightness: float = 0.0, contrast: float = 1.0, gamma: float = 1.0
) -> npt.NDArray[np.uint8]:
    """Output level of each of the 256 input levels, (256,) uint8: four changes composed, rounded once.

    In this order, each on what the one before left, levels as shares of the full range:

    1. ``exposure`` in photographic stops: light is multiplied by 2**exposure and clipped at full light. Light is
       the level decoded by the sRGB transfer function (IEC 61966-2-1), encoded again afterwards.
    2. ``gamma``, above 0: level ** gamma; above 1 darkens the middle.
    3. ``contrast``, 0 or more: (level - 0.5) * contrast + 0.5; 0 is plain grey.
    4. ``brightness``, -1 to 1: the share of the full range that is added.

    The result is clipped to 0..255. Tables never fall. Defaults are neutral and give the identity. Raises
    `ValueError` for a parameter outside its range.
    """
    if not (gamma > 0 and contrast >= 0 and -1 <= brightness <= 1):
        raise ValueError(f"gamma {gamma}, contrast {contrast} or brightness {brightness} is out of range")
    level = _exposed(exposure) if exposure else _LEVEL
    if gamma != 1:
        level = level**gamma
    levels = (level * 255 - 127.5) * contrast + (127.5 + 255 * brightness)
    table: Table = np.rint(np.minimum(np.maximum(levels, 0), 255)).astype(np.uint8)
    return table


def exposure_table(stops: float) -> npt.NDArray[np.uint8]:
    """256 output levels for an exposure change in photographic stops alone; 0 stops is the identity."""
    return tone_table(exposure=stops)


def _exposed(stops: float) -> npt.NDArray[np.float64]:
    lit = np.minimum(_LIGHT * 2.0**stops, 1)
    encoded: npt.NDArray[np.float64] = np.where(lit <= 0.0031308, lit * 12.92, 1.055 * lit ** (1 / 2.4) - 0.055)
    return encoded


def apply_table(photo: Photo, table: Table) -> Photo:
    """``photo`` with each level of each channel replaced by its entry in ``table``, (256,) uint8."""
    return np.asarray(cv2.LUT(photo, table), np.uint8)


def adjust_saturation(photo: Photo, factor: float) -> Photo:
    """Blend ``photo`` with its own grey: 0 is grey, 1 the photo itself, above 1 more colourful.

    Grey is the luma of ITU-R BT.601. ``factor``, 0 to `MAX_SATURATION`, is rounded to 1/4096: then every product and
    sum of the blend is a whole number of 1/4096 below 2**24, which float32 holds exactly, fused or not. Grey is
    rounded to a level, the blend once more: within 0.55 + 0.5 * abs(1 - factor) levels of the exact blend.
    Raises `ValueError` for a factor outside its range.
    """
    if not 0 <= factor <= MAX_SATURATION:
        raise ValueError(f"a saturation factor of {factor} is not within 0 and {MAX_SATURATION:g}")
    share = round(factor * 4096) / 4096
    if share == 1:
        return photo
    grey = cv2.cvtColor(_luma(photo), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(photo, share, grey, 1 - share, 0, dst=grey), np.uint8)


def rotate_hue(photo: Photo, degrees: float) -> Photo:
    """Turn every hue by ``degrees`` (red to green is 120), saturation and value of HSV unchanged.

    Within 0.5 levels of A. R. Smith, Color Gamut Transform Pairs (1978), computed exactly: whole numbers throughout,
    the only rounding is that of the turn's share of each pixel's chroma. Whole turns return the photo itself.
    """
    # A third of a turn only passes the channels on; what remains is within a sixth of a turn either way.
    thirds = round(degrees / 120)
    share = (degrees - 120 * thirds) / 60
    order = [(channel - thirds) % 3 for channel in range(3)]
    if share == 0:
        return shuffle_channels(photo, (order[0], order[1], order[2]))
    planes = cv2.split(photo)
    turned = [planes[channel] for channel in order]
    # Backwards is forwards with the channels in the opposite order.
    turned = _turn(turned[::-1], -share)[::-1] if share < 0 else _turn(turned, share)
    return np.asarray(cv2.merge(turned), np.uint8)


def _turn(planes: list[cv2.typing.MatLike], share: float) -> list[cv2.typing.MatLike]:
    """Turn hues by ``share`` (0 to 1) of 60 degrees, from the first of three channels towards the second.

    As hue grows, a channel rises to the maximum, stays, falls to the minimum and stays. It falls while the channel
    after it is above the one before it, and rises otherwise. A turn moves it by ``share`` of the chroma, less what
    the hue first has to go until the channel leaves its plateau. All differences saturate at zero, on purpose.
    """
    highest = cv2.max(cv2.max(planes[0], planes[1]), planes[2])
    lowest = cv2.min(cv2.min(planes[0], planes[1]), planes[2])
    steps = np.rint(np.arange(256) * share).astype(np.uint8)
    step = cv2.LUT(cv2.subtract(highest, lowest), steps)
    turned = []
    for channel, plane in enumerate(planes):
        after, before = planes[(channel + 1) % 3], planes[(channel + 2) % 3]
        falling = cv2.compare(after, before, cv2.CMP_GE)
        falling = cv2.bitwise_and(step, falling, dst=falling)
        rising = cv2.subtract(step, falling)
        way = cv2.subtract(highest, after)
        fall = cv2.subtract(falling, way, dst=falling)
        way = cv2.subtract(after, lowest, dst=way)
        rise = cv2.subtract(rising, way, dst=rising)
        fallen = cv2.subtract(plane, fall, dst=fall)
        fallen = cv2.max(fallen, lowest, dst=fallen)
        risen = cv2.add(fallen, rise, dst=fallen)
        turned.append(cv2.min(risen, highest, dst=risen))
    return turned


def shuffle_channels(photo: Photo, order: tuple[int, int, int]) -> Photo:
    """Channel k of the result is channel ``order[k]`` of ``photo``.

    Raises `ValueError` if ``order`` is no permutation of 0, 1, 2.
    """
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f"{order} is no order of three channels")
    if tuple(order) == (0, 1, 2):
        return photo
    planes = cv2.split(photo)
    return np.asarray(cv2.merge([planes[channel] for channel in order]), np.uint8)


def equalize(photo: Photo) -> Photo:
    """Equalise the histogram of luma (ITU-R BT.601); the differences between the channels stay as they are.

    Level v of luma becomes 255 * (cdf(v) - c) / (H * W - c), c the pixels of the darkest level present (Gonzalez and
    Woods, Digital Image Processing). A photo of one level of luma stays as it is.
    """
    luma = _luma(photo)
    return _shift(photo, luma, cv2.equalizeHist(luma))


def clahe(photo: Photo, clip_limit: float, tiles: int = 8) -> Photo:
    """Contrast limited adaptive histogram equalisation of luma; differences between the channels stay as they are.

    K. Zuiderveld, Contrast Limited Adaptive Histogram Equalization (Graphics Gems IV, 1994), on ``tiles`` by
    ``tiles`` tiles. ``clip_limit``, 1 or more, bounds a histogram's bins as a multiple of their mean: 1 is the
    weakest (no identity), 4 is strong. Raises `ValueError` for parameters outside their range.
    """
    if not (clip_limit >= 1 and tiles >= 1):
        raise ValueError(f"a clip limit of {clip_limit} or {tiles} tiles are out of range")
    luma = _luma(photo)
    return _shift(photo, luma, cv2.createCLAHE(clip_limit, (tiles, tiles)).apply(luma))


def _luma(photo: Photo) -> cv2.typing.MatLike:
    """(H, W) uint8, ITU-R BT.601 in 15-bit whole numbers."""
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)


def _shift(photo: Photo, old: cv2.typing.MatLike, new: cv2.typing.MatLike) -> Photo:
    """Add ``new`` - ``old``, both (H, W), to every channel; clipped. One of the two differences is zero."""
    shift = cv2.cvtColor(cv2.subtract(new, old), cv2.COLOR_GRAY2RGB)
    shifted = cv2.add(photo, shift)
    shift = cv2.cvtColor(cv2.subtract(old, new), cv2.COLOR_GRAY2RGB, dst=shift)
    return np.asarray(cv2.subtract(shifted, shift, dst=shifted), np.uint8)
