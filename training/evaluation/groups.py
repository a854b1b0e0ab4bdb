"""The photos of a split by what is in them: subject size, category, cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Small is below the first share of the photo, large from the second on.
SIZE_LIMITS = (0.1, 0.3)


@dataclass(frozen=True)
class Facts:
    """What is known of a photo besides its pixels.

    ``share`` is that of the subject in the photo, in [0, 1]; None where there are several classes.
    """

    number: int
    key: str | None
    files: tuple[str, ...]
    size: tuple[int, int]
    share: float | None
    categories: tuple[str, ...]
    cluster: int | None

    @property
    def label(self) -> str:
        """A name for people."""
        return self.key if self.key is not None else f"#{self.number}"


def group(facts: Sequence[Facts]) -> dict[str, dict[str, np.ndarray]]:
    """Kind of group → name → the numbers of its photos, int64 ascending; kinds that the dataset lacks are left out.

    A photo with several categories is in the group of each.
    """
    groups: dict[str, dict[str, list[int]]] = {"size": {}, "category": {}, "cluster": {}}
    for place, photo in enumerate(facts):
        if photo.share is not None:
            groups["size"].setdefault(_size(photo.share), []).append(place)
        for name in photo.categories:
            groups["category"].setdefault(name, []).append(place)
        if photo.cluster is not None:
            groups["cluster"].setdefault(str(photo.cluster), []).append(place)
    order: dict[str, Callable[[str], Any]] = {"size": _SIZES.index, "category": str, "cluster": int}
    return {
        kind: {name: np.array(members[name]) for name in sorted(members, key=order[kind])}
        for kind, members in groups.items()
        if members
    }


_SIZES = (
    "none",
    f"small: below {SIZE_LIMITS[0]:.0%}",
    f"medium: {SIZE_LIMITS[0]:.0%} to {SIZE_LIMITS[1]:.0%}",
    f"large: {SIZE_LIMITS[1]:.0%} or more",
)


def _size(share: float) -> str:
    return _SIZES[0] if share == 0 else _SIZES[1 + sum(share >= limit for limit in SIZE_LIMITS)]
