"""What a reader of a dataset should know before training on it: findings about samples that passed.

What cannot be used at all is in the quarantine; what is merely suspicious is here::

    {"check": name, "severity": "info" | "warning", "split": name or null, "count": number, "message": sentence}
"""

from collections.abc import Mapping
from typing import Any

from .plan import Plan

#: Raw masks with a larger share of grey pixels than this have a halo rather than smooth edges.
_HALO = 0.05

#: What handlers that put pictures together count of their troubles.
_COUNTED = {
    "unreadable_backgrounds": "backgrounds could not be read; others were taken",
    "backgrounds_without_room": "backgrounds had no surface large enough; others were taken",
    "unusable_partners": "further subjects could not be used; others were taken",
    "logos_off_surfaces": "logos are set where there is no even surface, for no background had one with room",
    "logos_left_out": "further logos found no place",
    "missing_depth_maps": "backgrounds have no depth map; planes were drawn at random",
    "unusable_depth_maps": "depth maps could not be used; planes were drawn at random",
}


def gate(plan: Plan, statistics: Mapping[str, Mapping[str, Any]], quarantined: int) -> list[dict[str, Any]]:
    """The findings of a dataset, from its plan and the statistics of its splits."""
    findings = []
    if quarantined:
        findings.append(_finding("quarantine", "warning", None, quarantined, "samples cannot be used; see quarantine"))
    parted = sum(len({split for split, _ in group}) > 1 for group in plan.near_duplicates)
    if parted:
        message = "photos are in more than one split: results on the held-out ones will look better than they are"
        findings.append(_finding("leakage", "warning", None, parted, message))
    if together := len(plan.near_duplicates) - parted:
        findings.append(_finding("near_duplicates", "info", None, together, "photos are there more than once"))
    for split, numbers in statistics.items():
        findings += _of_masks(split, numbers)
    return findings


def _of_masks(split: str, numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    findings = []
    if count := numbers.get("empty_masks"):
        findings.append(_finding("empty_masks", "warning", split, count, "examples show nothing of their subject"))
    if count := numbers.get("full_masks"):
        findings.append(_finding("full_masks", "warning", split, count, "examples show nothing but their subject"))
    if count := numbers.get("void_masks"):
        findings.append(_finding("void_masks", "warning", split, count, "examples have no pixel whose class is known"))
    if count := numbers.get("grey_masks"):
        share = numbers["grey_pixels"] / numbers["mask_pixels"]
        halo = share > _HALO
        message = f"raw masks have grey levels, {share:.2%} of the pixels of all" + (
            ", which is a halo" if halo else ""
        )
        findings.append(_finding("grey_masks", "warning" if halo else "info", split, count, message))
    findings += [
        _finding(name, "warning", split, numbers[name], message)
        for name, message in _COUNTED.items()
        if name in numbers
    ]
    return findings


def _finding(check: str, severity: str, split: str | None, count: int, message: str) -> dict[str, Any]:
    return {"check": check, "severity": severity, "split": split, "count": count, "message": message}
