"""Street scenes drawn by chance, with a class for each pixel, as CamVid has them."""

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
Point = tuple[float, float]

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)

_BGR = {
    SKY: (235, 200, 170),
    BUILDING: (110, 130, 165),
    POLE: (70, 75, 80),
    ROAD: (95, 95, 95),
    PAVEMENT: (150, 160, 165),
    TREE: (60, 110, 60),
    SIGN: (50, 60, 200),
    FENCE: (80, 115, 140),
    CAR: (150, 60, 40),
    PEDESTRIAN: (70, 60, 110),
    BICYCLIST: (60, 140, 190),
}
_DARK = (45, 40, 40)


class _Street:
    """A picture (H, W, 3) uint8 BGR and its classes (H, W) uint8, drawn on together; places are shares of the sides."""

    def __init__(self, random: np.random.Generator, height: int, width: int) -> None:
        self.random = random
        self.sides = np.array([width, height])
        self.picture: Array = np.full((height, width, 3), _BGR[SKY], np.uint8)
        self.classes: Array = np.full((height, width), SKY, np.uint8)

    def polygon(self, kind: int, *corners: Point, colour: tuple[int, int, int] | None = None) -> None:
        points = np.rint(np.array(corners) * self.sides).astype(np.int32)
        cv2.fillPoly(self.picture, [points], colour or self.shade(kind))
        cv2.fillPoly(self.classes, [points], kind)

    def box(self, kind: int, x0: float, y0: float, x1: float, y1: float, **options: tuple[int, int, int]) -> None:
        self.polygon(kind, (x0, y0), (x1, y0), (x1, y1), (x0, y1), **options)

    def ellipse(self, kind: int, x: float, y: float, wide: float, high: float, **options: tuple[int, int, int]) -> None:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self.polygon(kind, *zip(x + wide * np.cos(angles), y + high * np.sin(angles), strict=True), **options)

    def shade(self, kind: int) -> tuple[int, int, int]:
        """The colour of a class, lighter or darker."""
        blue, green, red = np.clip(np.array(_BGR[kind]) * self.random.uniform(0.75, 1.25), 0, 255).astype(int).tolist()
        return blue, green, red


def street(random: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    """A street scene, (H, W, 3) uint8 BGR, and its classes (H, W) uint8: 0 to 10, 11 where it is not decided."""
    scene = _Street(random, height, width)
    horizon = random.uniform(0.42, 0.52)
    scene.box(PAVEMENT, 0, horizon, 1, 1)
    vanishing = random.uniform(0.4, 0.6)
    scene.polygon(ROAD, (vanishing - 0.03, horizon), (vanishing + 0.03, horizon), (0.95, 1), (0.05, 1))
    _buildings(scene, horizon)
    for x in random.uniform(0, 1, random.integers(1, 4)):
        _tree(scene, float(x), horizon)
    start = random.uniform(0, 0.6)
    for post in np.arange(start, start + 0.25, 0.02):
        scene.box(FENCE, post, horizon, post + 0.012, horizon + 0.09)
    for x in random.uniform(0.05, 0.95, 2):
        scene.box(POLE, x, horizon - 0.35, x + 0.014, horizon + 0.1)
        scene.box(SIGN, x - 0.03, horizon - 0.35, x + 0.044, horizon - 0.24)
    for _ in range(random.integers(1, 4)):
        _car(scene, vanishing, horizon)
    for kind in (PEDESTRIAN, BICYCLIST):
        for x in random.uniform(0.05, 0.95, random.integers(0, 3)):
            _person(scene, kind, float(x), horizon + random.uniform(0.05, 0.2))
    edges = cv2.morphologyEx(scene.classes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    scene.classes[edges & (random.random((height, width)) < 0.5)] = VOID
    noise = random.normal(0, 7, (height, width, 1))
    picture = np.clip(cv2.GaussianBlur(scene.picture, (3, 3), 0.7) + noise, 0, 255).astype(np.uint8)
    return picture, scene.classes


def _buildings(scene: _Street, horizon: float) -> None:
    x = 0.0
    while x < 1:
        wide, top = scene.random.uniform(0.12, 0.3), scene.random.uniform(0.05, horizon - 0.1)
        if scene.random.random() < 0.8:
            scene.box(BUILDING, x, top, x + wide, horizon + 0.02)
            for column in np.arange(x + 0.02, x + wide - 0.03, 0.05):
                for row in np.arange(top + 0.03, horizon - 0.06, 0.09):
                    scene.box(BUILDING, column, row, column + 0.025, row + 0.05, colour=_DARK)
        x += wide


def _tree(scene: _Street, x: float, horizon: float) -> None:
    scene.box(TREE, x - 0.01, horizon - 0.1, x + 0.01, horizon + 0.06, colour=(50, 70, 90))
    for _ in range(6):
        dx, dy = scene.random.normal(0, 0.035, 2)
        scene.ellipse(TREE, x + dx, horizon - 0.15 + dy, 0.06, 0.075)


def _car(scene: _Street, vanishing: float, horizon: float) -> None:
    near = scene.random.uniform(0.15, 0.8)  # how far from the horizon to the bottom
    x, bottom, size = vanishing + near * scene.random.uniform(-0.35, 0.35), horizon + near * (1 - horizon), near * 0.3
    scene.box(CAR, x - size / 3, bottom - size, x + size / 3, bottom - size / 2, colour=_DARK)
    scene.box(CAR, x - size / 2, bottom - 0.65 * size, x + size / 2, bottom - 0.1 * size)
    for side in (-0.35, 0.35):
        scene.ellipse(CAR, x + side * size, bottom - 0.1 * size, size / 9, size / 7, colour=_DARK)


def _person(scene: _Street, kind: int, x: float, bottom: float) -> None:
    if kind == BICYCLIST:
        for side in (-0.025, 0.025):
            scene.ellipse(kind, x + side, bottom - 0.02, 0.02, 0.03, colour=_DARK)
    scene.ellipse(kind, x, bottom - 0.09, 0.016, 0.07)
    scene.ellipse(kind, x, bottom - 0.175, 0.011, 0.018, colour=(140, 160, 200))
