"""Confidence intervals by the percentile bootstrap over photos (Efron 1979, *Bootstrap methods: another look at the
jackknife*).

A resample draws N of the N photos with replacement. A statistic is computed of each resample; the interval lies between
the percentiles of what came out. All statistics here are functions of means over photos, so a resample is kept as how
often each photo is in it, and all means of all resamples are one matrix product. Two runs that share `Resamples` are
compared photo by photo: what makes a photo hard for both cancels in their difference (the paired bootstrap).

The intervals say how far the result would move with other photos of the same kind. They say nothing of another
training of the same model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

#: Name → (N,) or (N, K) float64, a row per photo; NaN where a photo has no such value.
Table = Mapping[str, np.ndarray]
#: Name → (R,) or (R, K), a row per resample.
Means = Mapping[str, np.ndarray]
Statistic = Callable[[Means], dict[str, np.ndarray]]

_CELLS = 2**21  # of a block of resamples: with 5,000 photos 420 resamples, 16 MB


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each photo is in each resample: ``counts`` uint16 (R, N), each row with the sum N."""

    counts: np.ndarray

    @classmethod
    def draw(cls, photos: int, resamples: int, seed: int) -> "Resamples":
        """A function of its arguments and nothing else; ``photos`` ≥ 1."""
        random = np.random.default_rng([seed, photos])
        counts = np.empty((resamples, photos), np.uint16)
        for row in counts:
            row[:] = np.bincount(random.integers(photos, size=photos), minlength=photos)
        return cls(counts)

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows, some at a time, as float64."""
        rows = max(1, _CELLS // self.counts.shape[1])
        for start in range(0, len(self.counts), rows):
            yield self.counts[start : start + rows].astype(np.float64)


@dataclass(frozen=True, eq=False)
class Replicates:
    """A statistic of all photos, ``value`` () or (K,), and of each resample, ``resampled`` (R,) or (R, K)."""

    value: np.ndarray
    resampled: np.ndarray

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end, () or (K,); NaN where no resample has a value."""
        missing = np.isnan(self.resampled).all(axis=0)
        filled = np.where(missing, 0.0, self.resampled)
        tail = (1 - confidence) / 2
        low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
        return np.where(missing, np.nan, low), np.where(missing, np.nan, high)

    def __sub__(self, other: "Replicates") -> "Replicates":
        """The difference, resample by resample; both are of the same `Resamples`."""
        return Replicates(self.value - other.value, self.resampled - other.resampled)


def weighted_means(table: Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of each column by each row of ``weights`` (R, N), over the photos that have a value: NaN if none has."""
    means = {}
    for name, column in table.items():
        there = np.isfinite(column)
        if there.all():
            means[name] = weights @ column / _columns(weights.sum(axis=1), column)
            continue
        totals, counts = weights @ np.where(there, column, 0), weights @ there.astype(column.dtype)
        means[name] = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return means


def means_of(table: Table) -> dict[str, np.ndarray]:
    """The plain means over all photos, each with a first dimension of 1."""
    photos = len(next(iter(table.values())))
    return weighted_means(table, np.ones((1, photos)))


def replicate(table: Table, statistic: Statistic, resamples: Resamples) -> dict[str, Replicates]:
    """Each of the statistics, of all photos and of every resample. ``table`` has as many rows as ``resamples`` photos.

    Of a single photo there is only one resample, which tells nothing: all resampled values are NaN. Columns in float32
    are resampled in float32, for speed: nearly all there is to compute is of curves.
    """
    values = statistic(means_of(table))
    if resamples.counts.shape[1] == 1:
        return {name: Replicates(value[0], np.full_like(value, np.nan)) for name, value in values.items()}
    coarse = {name: column for name, column in table.items() if column.dtype == np.float32}
    fine = {name: column for name, column in table.items() if name not in coarse}
    parts = [
        statistic(weighted_means(fine, block) | weighted_means(coarse, block.astype(np.float32)))
        for block in resamples.blocks()
    ]
    return {
        name: Replicates(value[0], np.concatenate([part[name] for part in parts])) for name, value in values.items()
    }


def _columns(sums: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Sums (R,), shaped to divide (R,) or (R, K)."""
    return sums if column.ndim == 1 else sums[:, None]
