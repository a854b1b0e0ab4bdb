"""Clusters of cut-out photos that look alike, and how often each sample is taken so that no cluster is left small.

Appearance is four blocks side by side: colours (histogram in CIELAB), edges (histograms of oriented gradients after
N. Dalal and B. Triggs, 2005), shape (how much of each cell the subject covers) and proportions. The first two are
shares of a whole, and their square roots are taken: the Euclidean distance between those is the Hellinger distance,
which is made for comparing shares.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import BadSampleError

Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

#: The subject's bounding box is reduced to this many rows and columns.
_SIDE = 64
#: Lightness is counted in this many steps, and a and b together in a square of as many steps each.
_LIGHT_BINS, _HUE_BINS = 8, 7
#: Orientations of edges, over half a turn, in each of 4 x 4 cells.
_ORIENTATIONS, _EDGE_CELLS = 8, 4
#: Cells of the shape, 8 x 8.
_SHAPE_CELLS = 8

#: Length of `appearance`.
FEATURES = _LIGHT_BINS + _HUE_BINS**2 + _ORIENTATIONS * _EDGE_CELLS**2 + _SHAPE_CELLS**2 + 1

# The lines between orientations as whole numbers: a gradient's side of a line does not hang on a last bit. The first
# orientation is centred on 0°, since upright and level edges are the most frequent and should not lie on a line.
_LINES = [
    (round(1024 * math.cos(angle)), round(1024 * math.sin(angle)))
    for angle in (math.pi * (k + 0.5) / _ORIENTATIONS for k in range(_ORIENTATIONS))
]

#: Principal components are taken until they explain this share of the variance, or are this many.
_EXPLAINED, _MAX_COMPONENTS = 0.95, 32


@dataclass(frozen=True)
class Clusters:
    """``labels[i]`` is the cluster of sample i; cluster 0 is the largest, ``sizes[0]`` samples.

    ``explained_variance`` is the share, 0-1, of the features' variance that the clustering could see.
    """

    labels: list[int]
    sizes: list[int]
    explained_variance: float


def appearance(photo: Array, alpha: Array) -> Floats:
    """What a cut-out looks like: (FEATURES,) float64, each block of about the same weight, rounded to 6 decimals.

    ``photo`` is (H, W, 3) uint8 RGB and ``alpha`` (H, W) uint8. Where in the picture the subject is, how many pixels it
    has and what colours hide where alpha is 0 does not matter. Raises BadSampleError where there is no subject,
    ValueError for other shapes or types.
    """
    if photo.dtype != np.uint8 or alpha.dtype != np.uint8 or photo.shape != (*alpha.shape, 3):
        raise ValueError(f"not an RGB photo and its alpha: {photo.shape} {photo.dtype}, {alpha.shape} {alpha.dtype}")
    peak = int(alpha.max(initial=0))
    if peak == 0:
        raise BadSampleError("there is no subject: alpha is 0 everywhere")
    # Half of the peak: a shadow or a haze around the subject is not its box, yet a subject of glass has one.
    left, top, width, height = cv2.boundingRect((alpha >= (peak + 1) // 2).astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    colours, coverage = _reduced(photo[box], alpha[box])
    if not coverage.any():
        raise BadSampleError("there is no subject: alpha is next to 0 everywhere")
    lab = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2LAB), np.uint8)
    blocks = (
        _colour_shares(lab, coverage),
        _edge_shares(lab[..., 0], coverage),
        _area(coverage, _SHAPE_CELLS).ravel().astype(np.float64) / (255 * _SHAPE_CELLS),
        np.array([math.log(height / width) / 2]),
    )
    return np.round(np.concatenate(blocks), 6)


def _area(picture: Array, side: int) -> Array:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _reduced(photo: Array, alpha: Array) -> tuple[Array, Array]:
    """Colours and coverage, (_SIDE, _SIDE[, 3]) uint8. Each pixel's colour counts as much as it is opaque."""
    coverage = _area(alpha, _SIDE)
    # No product of two bytes lies half-way between two multiples of 255: float arithmetic rounds it as exact one would.
    premultiplied = cv2.multiply(photo, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
    weighted = _area(np.asarray(premultiplied, np.uint8), _SIDE).astype(np.int64) * 255
    divisor = np.maximum(coverage, 1)[..., None].astype(np.int64)
    return np.minimum((weighted + divisor // 2) // divisor, 255).astype(np.uint8), coverage


def _colour_shares(lab: Array, coverage: Array) -> Floats:
    """Roots of the shares of lightness, and of hue and saturation: (_LIGHT_BINS + _HUE_BINS²,)."""
    weights = coverage.ravel().astype(np.float64)  # whole numbers: their sums are exact
    light = np.bincount(lab[..., 0].ravel().astype(np.intp) * _LIGHT_BINS // 256, weights, _LIGHT_BINS)
    # Bins of 16 levels within 128 ± 56; the outer ones take the few colours beyond.
    a, b = ((np.clip(lab[..., k].ravel().astype(np.intp) - 72, 0, 111) // 16) for k in (1, 2))
    hue = np.bincount(a * _HUE_BINS + b, weights, _HUE_BINS**2)
    roots: Floats = np.sqrt(np.concatenate([light, hue]) / (2 * weights.sum()))
    return roots


def _edge_shares(light: Array, coverage: Array) -> Floats:
    """Roots of the shares of gradients by cell and orientation: (_EDGE_CELLS² · _ORIENTATIONS,).

    The subject lies on middle grey, so that its outline is an edge, too.
    """
    opaque = coverage.astype(np.int32)
    level = ((light * opaque + 128 * (255 - opaque) + 127) // 255).astype(np.uint8)
    x = cv2.Sobel(level, cv2.CV_16S, 1, 0).astype(np.int64)
    y = cv2.Sobel(level, cv2.CV_16S, 0, 1).astype(np.int64)
    flipped = np.where(y < 0, -1, 1)  # a dark-to-light edge is the same edge as a light-to-dark one
    x, y = x * flipped, y * flipped
    passed = sum(((y * cosine >= x * sine).astype(np.intp) for cosine, sine in _LINES), np.zeros_like(x))
    cell = np.arange(_SIDE) * _EDGE_CELLS // _SIDE
    bins = (cell[:, None] * _EDGE_CELLS + cell) * _ORIENTATIONS + passed % _ORIENTATIONS
    strength = np.sqrt((x * x + y * y).astype(np.float64))
    shares = np.bincount(bins.ravel(), strength.ravel(), _EDGE_CELLS**2 * _ORIENTATIONS)
    roots: Floats = np.sqrt(shares / max(float(shares.sum()), 1.0))
    return roots


def assign_clusters(features: Floats, count: int, seed: int) -> Clusters:
    """Put (N, D) features, N > 0, into ``count`` clusters: PCA, then k-means (best of 10 starts).

    Columns are centred but not scaled to one variance: a bin that few samples fill would then count as much as one
    that all fill, and each of those few would be a cluster of its own. The blocks of `appearance` are comparable as
    they are. Components are taken until they explain 95 % of the variance, 32 at most.

    Clusters are numbered by size, the largest first, and equal ones by their first sample. There are fewer than
    ``count`` of them where there are fewer different samples.

    The same features in the same order and the same ``seed`` (0 or more) give the same clusters on one machine,
    whatever its number of threads. Across processors this is not guaranteed: linear algebra adds up in another order
    there. The components are rounded to hide that, but a sample half-way between two clusters, or two starts of equal
    worth, can still go the other way. Another release of scikit-learn may cluster otherwise altogether. Raises
    ValueError for features that are not finite or not (N, D), and for a ``count`` below 1.
    """
    if features.ndim != 2 or 0 in features.shape or not np.isfinite(features).all():
        raise ValueError(f"features are (N, D) finite numbers, not {features.shape}")
    if count < 1:
        raise ValueError(f"there is at least 1 cluster, not {count}")
    components, explained = _principal_components(features)
    count = min(count, len(np.unique(components, axis=0)))
    return Clusters(*_numbered(_k_means(components, count, seed)), explained)


def _principal_components(features: Floats) -> tuple[Floats, float]:
    """(N, K) components of the features, and the share of their variance these explain."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    if not np.ptp(features, axis=0).any():
        return np.zeros((len(features), 1)), 1.0
    with threadpool_limits(1):
        pca = PCA(min(_MAX_COMPONENTS, *features.shape), svd_solver="covariance_eigh").fit(features)
        components = pca.transform(features)
    explained = np.cumsum(pca.explained_variance_ratio_)
    taken = min(int(np.searchsorted(explained, _EXPLAINED)) + 1, len(explained))
    return np.round(components[:, :taken], 6), float(explained[taken - 1])


def _k_means(points: Floats, count: int, seed: int) -> list[int]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        means = KMeans(count, n_init=10, random_state=seed % 2**32).fit(points)
    return [int(label) for label in means.labels_]


def _numbered(labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The labels renumbered by size and first sample, and the sizes: independent of how k-means numbers them."""
    sizes = Counter(labels)  # keeps the order of the first samples, and so does the sort
    ranked = sorted(sizes, key=lambda label: -sizes[label])
    number = {label: rank for rank, label in enumerate(ranked)}
    return [number[label] for label in labels], [sizes[label] for label in ranked]


def balance(labels: Sequence[Hashable], share: float) -> list[int]:
    """How many variations, at least 1, to make of each sample so that no cluster is small.

    Each cluster gets ``share`` (0-1) of the largest one's samples as examples, rounded up; one that has more keeps
    one each. The extra ones are spread over the cluster in the order of its samples: no two of them differ by more than
    1. A share of 0 balances nothing, 1 makes all clusters equal. Raises ValueError for other shares.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    sizes = Counter(labels)
    # As written: 0.1 of 30 is 3, while the binary number 0.1 is a little more than a tenth and would make it 4.
    wanted = math.ceil(Fraction(repr(float(share))) * max(sizes.values(), default=0))
    seen: Counter[Hashable] = Counter()
    variations = []
    for label in labels:
        size, place = sizes[label], seen[label]
        examples = max(wanted, size)
        variations.append((place + 1) * examples // size - place * examples // size)
        seen[label] += 1
    return variations
