"""Subjects drawn by code, with an opacity of their own: things to cut out, soft things, and flat icons.

Pictures are (H, W, 4) uint8 in OpenCV's order, BGRA. Colours are straight, and go on where nothing is opaque, so that
no edge shows another colour however a picture is resampled. Opacity is drawn four times as large and averaged.
"""

import colorsys
import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

_FINER = 4  # how many times as large opacity is drawn
_SHIFT = 4  # binary digits of fractions of a pixel


def blob(random: np.random.Generator, size: float, uneven: float = 0.5) -> Floats:
    """The outline of a blob about (0, 0), (72, 2) points x, y: a circle of radius ``size`` with random harmonics."""
    angles = _angles(72)
    radius = np.ones_like(angles)
    for harmonic in (2, 3, 5):
        radius += random.uniform(0, uneven / harmonic) * np.cos(harmonic * angles + random.uniform(0, 2 * math.pi))
    return _polar(angles, radius * size)


def ball(random: np.random.Generator, side: int) -> Array:
    """A shaded ball with a belt."""
    hue, tilt = random.random(), random.uniform(0, math.pi)
    x, y = _grid(side, side)
    belt = np.abs(x * math.cos(tilt) + y * math.sin(tilt)) < 0.22
    colour = np.where(belt[..., None], _bgr(hue + 0.5, 0.25, 1), _bgr(hue, 0.85, 0.95))
    # Light falls on it from the upper left.
    depth = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = np.clip(0.35 + 0.75 * (depth * 0.7 - x * 0.45 - y * 0.55), 0.2, 1.15)
    return _picture(colour * light[..., None], _polar(_angles(120), 0.94))


def flower(random: np.random.Generator, side: int) -> Array:
    """Petals around a heart, warm colours."""
    petals, turn = int(random.integers(5, 9)), random.uniform(0, 2 * math.pi)
    angles = _angles(240)
    outline = _polar(angles, 0.5 + 0.45 * np.abs(np.cos(petals * (angles - turn) / 2)))
    x, y = _grid(side, side)
    radius = np.hypot(x, y)
    shade = 1 - 0.35 * np.abs(np.sin(petals * (np.arctan2(y, x) - turn) / 2))
    colour = _bgr(random.uniform(0.85, 1.08), random.uniform(0.5, 0.9), 1) * (shade * (0.6 + 0.4 * radius))[..., None]
    colour = np.where((radius < 0.24)[..., None], _bgr(0.14, 0.9, 0.95), colour)
    return _picture(colour, outline)


def leaf(random: np.random.Generator, side: int) -> Array:
    """A pointed leaf with veins, green to yellow."""
    turn, width = random.uniform(0, 2 * math.pi), random.uniform(0.3, 0.55)
    along = np.linspace(-1, 1, 60)
    bulge = width * (1 - along**2) * (1 + 0.4 * along)
    outline = np.concatenate([np.stack([along, bulge], 1), np.stack([along, -bulge], 1)[::-1]]) * 0.94
    x, y = _grid(side, side)
    length, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    veins = (np.abs(across) < 0.025) | (np.abs(np.sin(9 * (length - np.abs(across)))) < 0.1)
    colour = _bgr(random.uniform(0.2, 0.38), 0.75, 0.75) * (0.8 + 0.3 * across / width)[..., None]
    colour = np.where(veins[..., None], colour * 0.6, colour)
    return _picture(colour, _turned(outline, turn))


def star(random: np.random.Generator, side: int) -> Array:
    """A star of folded paper, cold colours."""
    points, turn = int(random.integers(4, 8)), random.uniform(0, 2 * math.pi)
    angles = _angles(2 * points)
    outline = _polar(angles + turn, np.where(np.arange(2 * points) % 2, random.uniform(0.4, 0.55), 0.95))
    x, y = _grid(side, side)
    lit = np.floor((np.arctan2(y, x) - turn) / (math.pi / points)) % 2 == 0
    colour = _bgr(random.uniform(0.5, 0.75), 0.7, 1) * np.where(lit, 1.0, 0.65)[..., None]
    return _picture(colour, outline)


#: What can be cut out, by the name of its folder.
CUTOUTS: Mapping[str, Draw] = {"balls": ball, "flowers": flower, "leaves": leaf, "stars": star}


def fur(random: np.random.Generator, height: int, width: int) -> Array:
    """A furry ball, single hairs at its rim."""
    size = 0.24 * min(height, width)
    centre = np.array([random.uniform(0.4, 0.6) * width, random.uniform(0.45, 0.55) * height])
    rim = blob(random, size, 0.2)
    alpha = np.zeros((height * _FINER, width * _FINER), np.uint8)
    cv2.fillPoly(alpha, [_fixed((rim + centre) * _FINER)], 255, cv2.LINE_AA, shift=_SHIFT)
    steps = np.linspace(0, 1, 8)[:, None]
    for _ in range(900):
        root = rim[random.integers(len(rim))] * random.uniform(0.8, 1)
        outward = root / np.hypot(*root)
        bent = np.array([-outward[1], outward[0]]) * random.normal(0, 0.5) + np.array([0, 0.25])  # gravity
        hair = centre + root + size * random.uniform(0.2, 0.6) * (outward * steps + bent * steps**2)
        cv2.polylines(alpha, [_fixed(hair * _FINER)], False, 255, int(random.integers(1, 4)), cv2.LINE_AA, _SHIFT)
    x, y = _grid(height, width)
    streaks = cv2.GaussianBlur(random.normal(0, 1, (height, width)), (0, 0), 3, sigmaY=1)
    light = 0.75 + 0.8 * streaks - 0.3 * y - 0.1 * x
    return _with_alpha(_bgr(random.uniform(0.03, 0.12), 0.55, 0.8) * light[..., None], _smaller(alpha))


def defocused(random: np.random.Generator, height: int, width: int) -> Array:
    """A blob near the lens, so that its edge is a wide ramp."""
    centre = np.array([random.uniform(0.4, 0.6) * width, random.uniform(0.4, 0.6) * height])
    alpha = np.zeros((height, width), np.uint8)
    rim = blob(random, 0.28 * min(height, width))
    cv2.fillPoly(alpha, [_fixed(rim + centre)], 255, cv2.LINE_AA, shift=_SHIFT)
    x, y = _grid(height, width)
    light = 0.8 - 0.3 * y + 0.15 * np.sin(6 * x)
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), random.uniform(4, 8)), np.uint8)
    return _with_alpha(_bgr(random.random(), 0.7, 0.95) * light[..., None], alpha)


def bubble(random: np.random.Generator, height: int, width: int) -> Array:
    """A soap bubble: opaque at its rim, half transparent within."""
    radius = random.uniform(0.28, 0.38) * min(height, width)
    row, column = random.uniform(0.42, 0.58) * height, random.uniform(0.4, 0.6) * width
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - column, y - row) / radius
    opacity = np.where(distance < 1, 0.35 + 0.6 * distance**4, 0) * np.clip((1 - distance) * radius, 0, 1)
    shine = np.exp(-(((x - column) / radius + 0.35) ** 2 + ((y - row) / radius + 0.4) ** 2) * 18)
    opacity = np.maximum(opacity, shine * (distance < 1))
    turn = random.random()
    rainbow = np.stack([0.75 + 0.25 * np.cos(5 * distance + 6 * (turn + third / 3)) for third in range(3)], -1) * 255
    return _with_alpha(rainbow + (255 - rainbow) * shine[..., None], np.rint(opacity * 255).astype(np.uint8))


#: Soft things, by the name of their files.
MATTES: Mapping[str, Callable[[np.random.Generator, int, int], Array]] = {
    "fur": fur,
    "defocused": defocused,
    "bubble": bubble,
}


def icons() -> Mapping[str, Array]:
    """Flat icons of two or three colours, 192 x 192, by name."""
    red, blue, green, yellow = _bgr(0.99, 0.85, 0.85), _bgr(0.6, 0.85, 0.8), _bgr(0.4, 0.8, 0.6), _bgr(0.13, 0.85, 1)
    white, ink = np.array([250.0, 250, 250]), np.array([45.0, 40, 40])
    disc, square = _polar(_angles(120), 0.92), _box(-0.88, -0.88, 0.88, 0.88)
    t = _angles(120)
    heart = np.stack([16 * np.sin(t) ** 3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t)], 1) * 0.056
    arrow = np.array([[-0.7, -0.2], [0.1, -0.2], [0.1, -0.55], [0.75, 0], [0.1, 0.55], [0.1, 0.2], [-0.7, 0.2]])
    spikes = _polar(_angles(10) - math.pi / 2, np.where(np.arange(10) % 2, 0.4, 0.95))
    roof = np.array([[-0.95, 0.05], [0, -0.85], [0.95, 0.05]])
    flap = np.array([[-0.95, -0.6], [0, 0.15], [0.95, -0.6], [0.95, -0.48], [0, 0.3], [-0.95, -0.48]])
    return {
        "arrow": _icon((disc, blue), (arrow, white)),
        "cross": _icon((square, green), (_box(-0.2, -0.6, 0.2, 0.6), white), (_box(-0.6, -0.2, 0.6, 0.2), white)),
        "heart": _icon((heart, red)),
        "house": _icon((_box(-0.65, 0, 0.65, 0.85), yellow), (roof, red), (_box(-0.18, 0.3, 0.18, 0.85), ink)),
        "letter": _icon((_box(-0.95, -0.6, 0.95, 0.65), white), (flap, blue)),
        "play": _icon((square, red), (np.array([[-0.4, -0.55], [0.6, 0], [-0.4, 0.55]]), white)),
        "star": _icon((spikes, yellow)),
        "target": _icon((disc, red), (disc * 0.7, white), (disc * 0.4, red)),
    }


def _icon(*parts: tuple[Floats, Floats]) -> Array:
    """Polygons, within -1 and 1, laid over each other in flat colours."""
    side = 192
    colour = np.empty((side, side, 3))
    colour[:] = parts[0][1]
    opaque = np.zeros((side, side), np.uint8)
    for outline, paint in parts:
        shape = _filled(outline, side)
        # Nothing shines through where a later part meets the rim: its colour is the part's wherever it is seen at all.
        share = np.where(opaque > 0, shape / 255, shape > 0)[..., None]
        colour = colour * (1 - share) + paint * share
        opaque = np.maximum(opaque, shape)
    return _with_alpha(colour, opaque)


def _picture(colour: Floats, outline: Floats) -> Array:
    """``colour`` (side, side, 3), opaque within ``outline``, whose points are within -1 and 1."""
    return _with_alpha(colour, _filled(outline, len(colour)))


def _filled(outline: Floats, side: int) -> Array:
    large = np.zeros((side * _FINER, side * _FINER), np.uint8)
    cv2.fillPoly(large, [_fixed((outline + 1) * side * _FINER / 2)], 255, cv2.LINE_AA, shift=_SHIFT)
    return _smaller(large)


def _smaller(large: Array) -> Array:
    height, width = large.shape
    return np.asarray(cv2.resize(large, (width // _FINER, height // _FINER), interpolation=cv2.INTER_AREA), np.uint8)


def _with_alpha(colour: Floats, alpha: Array) -> Array:
    return np.dstack([np.rint(np.clip(colour, 0, 255)).astype(np.uint8), alpha])


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """x and y of each pixel's centre, from -1 to 1 along the shorter side."""
    y, x = np.mgrid[:height, :width] + 0.5
    return (2 * x - width) / min(height, width), (2 * y - height) / min(height, width)


def _angles(count: int) -> Floats:
    return np.linspace(0, 2 * math.pi, count, endpoint=False)


def _polar(angles: Floats, radius: Floats | float) -> Floats:
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], 1)


def _box(left: float, top: float, right: float, bottom: float) -> Floats:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _turned(points: Floats, angle: float) -> Floats:
    x, y = points[:, 0], points[:, 1]
    return np.stack([x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)], 1)


def _fixed(points: Floats) -> npt.NDArray[np.int32]:
    """Points as OpenCV takes fractions of pixels; a pixel's centre is at whole numbers there."""
    return np.asarray(np.rint((points - 0.5) * 2**_SHIFT), np.int32)


def _bgr(hue: float, saturation: float, value: float) -> Floats:
    """Blue, green and red, 0 to 255, of a hue counted in turns."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)[::-1]) * 255
