"""What is counted of every example, and what the manifest says of the sums.

Counters are whole numbers, so that sums do not depend on their order. Names with a colon belong to a group::

    pixels, subject_pixels             of the masks
    empty_masks, full_masks            masks without subject, or of nothing else
    subject_share:00 … :19             masks by the share of the subject, in twentieths
    label:<n>                          pixels of mask label n, where labels are numbers of categories or classes
    void_pixels, void_masks            pixels that have no class, and masks that have no others
    level_sum:<c>, square_sum:<c>, level_count   of channel c (0 red, 1 green, 2 blue), on every sixteenth row
    category:<name>, cluster:<n>       instances of a category, before augmentation; examples of a cluster
    raw_masks, grey_masks, grey_pixels, mask_pixels    raw masks, those with levels besides 0 and 255, pixels of these
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

_BINS = 20
#: Rows of a photo of which one is looked at for means and deviations.
_EVERY = 16
_SQUARES = (np.arange(256, dtype=np.uint32) ** 2).astype(np.uint16)


def count_example(example: Mapping[str, Any], subject_level: int = 1) -> dict[str, int]:
    """The counters of one example of a photo with a mask, whose levels from ``subject_level`` on are the subject."""
    mask = example["mask"]
    subject = cv2.countNonZero(mask if subject_level == 1 else cv2.inRange(mask, subject_level, 255))
    counted = {"pixels": mask.size, "subject_pixels": subject}
    counted[f"subject_share:{min(_BINS - 1, _BINS * subject // mask.size):02}"] = 1
    if subject == 0:
        counted["empty_masks"] = 1
    elif subject == mask.size:
        counted["full_masks"] = 1
    if "image" in example:
        counted |= _levels(example["image"])
    if example.get("cluster") is not None:
        counted[f"cluster:{example['cluster']}"] = 1
    return counted


def count_labels(mask: Any) -> dict[str, int]:
    """Pixels of each label in a mask (H, W) uint8 of category numbers."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {f"label:{label}": int(counts[label]) for label in np.flatnonzero(counts)}


def count_classes(example: Mapping[str, Any], void: int) -> dict[str, int]:
    """The counters of one example of a photo with a class for each pixel, but for those of level ``void``."""
    mask = example["mask"]
    counted = count_labels(mask)
    unknown = counted.pop(f"label:{void}", 0)
    counted["void_pixels"] = unknown
    if unknown == mask.size:
        counted["void_masks"] = 1
    return counted | (_levels(example["image"]) if "image" in example else {})


def _levels(photo: Any) -> dict[str, int]:
    looked_at = np.ascontiguousarray(photo[::_EVERY])
    # Sums of whole numbers in float64: exact.
    sums, squares = cv2.sumElems(looked_at), cv2.sumElems(cv2.LUT(looked_at, _SQUARES))
    counted = {"level_count": looked_at.shape[0] * looked_at.shape[1]}
    for channel in range(3):
        counted[f"level_sum:{channel}"] = int(sums[channel])
        counted[f"square_sum:{channel}"] = int(squares[channel])
    return counted


def summarize(counters: Mapping[str, int]) -> dict[str, Any]:
    """The statistics of a split, from the sums of its counters: numbers as they are, groups as lists and objects."""
    groups: dict[str, dict[str, int]] = {}
    summary: dict[str, Any] = {}
    for name, value in sorted(counters.items()):
        group, colon, member = name.partition(":")
        if colon:
            groups.setdefault(group, {})[member] = value
        elif name != "level_count":
            summary[name] = value
    if "pixels" in counters:
        summary["subject_share"] = round(counters.get("subject_pixels", 0) / max(1, counters["pixels"]), 6)
        shares = groups.pop("subject_share", {})
        summary["subject_share_histogram"] = [shares.get(f"{number:02}", 0) for number in range(_BINS)]
    if count := counters.get("level_count"):
        means = [groups["level_sum"][channel] / count for channel in "012"]
        squares = [groups["square_sum"][channel] / count for channel in "012"]
        summary["channel_mean"] = [round(mean, 3) for mean in means]
        summary["channel_std"] = [
            round(math.sqrt(max(0.0, square - mean * mean)), 3) for mean, square in zip(means, squares, strict=True)
        ]
    for group in ("level_sum", "square_sum"):
        groups.pop(group, None)
    names = {"category": "categories", "cluster": "clusters", "label": "label_pixels"}
    return summary | {names.get(group, group): members for group, members in groups.items()}


def total(counted: Sequence[Mapping[str, int]]) -> Counter[str]:
    """The sums of several counters."""
    summed: Counter[str] = Counter()
    for counters in counted:
        add(summed, counters)
    return summed


def add(sums: dict[str, int], counters: Mapping[str, int]) -> None:
    """Add ``counters`` to ``sums``, by name; for as few as a sample has, `Counter.update` takes longer."""
    for name, value in counters.items():
        sums[name] = sums.get(name, 0) + value
