"""What a dataset holds, as a table for people: counts, shares, histograms and findings of its manifest."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BAR = "█"
_BAR_WIDTH = 30
#: Statistics with a line of their own, and how it is called; whatever else there is comes after, under its own name.
_KNOWN = {
    "examples": "examples",
    "samples": "samples",
    "pixels": "pixels",
    "subject_pixels": "pixels on subjects",
    "grey_mask_pixels": "grey mask pixels",
    "empty_masks": "empty masks",
    "full_masks": "full masks",
    "channel_mean": "channel means (R, G, B)",
    "channel_std": "channel deviations",
}
_MOST_REASONS = 10


def statistics(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a manifest that say what is in the dataset, for machines."""
    kept = ("dataset_name", "config", "splits", "statistics", "gate", "quarantine")
    return {name: manifest[name] for name in kept if name in manifest}


def render(manifest: Mapping[str, Any]) -> str:
    """The statistics of a manifest as text, a section for each split, then findings and quarantine."""
    splits: Mapping[str, Any] = manifest["splits"]
    total = sum(entry["examples"] for entry in splits.values())
    lines = [f"{manifest['dataset_name']}: {_plural(total, 'example')} in {_plural(len(splits), 'split')}"]
    ordered = dict.fromkeys(shard["split"] for shard in manifest["shards"])
    for split, entry in ((split, splits[split]) for split in ordered):
        lines += [
            "",
            f"{split}: {_share(entry['examples'], total)} of all examples, in {_plural(entry['shards'], 'shard')}",
        ]
        lines += [f"  {line}" for line in _split(_named(manifest.get("statistics", {}).get(split, {}), manifest))]
    for title, section in (("gate", _gate(manifest)), ("quarantine", _quarantine(manifest))):
        lines += ["", title, *(f"  {line}" for line in section)]
    return "\n".join(lines) + "\n"


def _named(values: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics with names in place of the numbers of classes, as far as the manifest has them."""
    pixels, names = values.get("label_pixels", {}), manifest.get("labels", {})
    if not (_is_table(pixels) and isinstance(names, Mapping)):
        return dict(values)
    return {**values, "label_pixels": {names.get(label, label): count for label, count in pixels.items()}}


def _split(values: Mapping[str, Any]) -> Iterator[str]:
    plain = {title: values[name] for name, title in _KNOWN.items() if name in values}
    plain |= {
        _title(name): value
        for name, value in values.items()
        if name not in _KNOWN and not _is_table(value) and not _is_histogram(name, value)
    }
    width = max(map(len, plain), default=0)
    for title, value in plain.items():
        of = _share(values["subject_pixels"], values["pixels"]) if title == _KNOWN["subject_pixels"] else ""
        yield f"{title:<{width}}  {_value(value)}{f'  ({of})' if of else ''}"
    for name, value in values.items():
        if _is_histogram(name, value):
            yield f"{_title(name)}:"
            yield from (f"  {line}" for line in _bars(_bins(name, value)))
        elif _is_table(value):
            yield f"{_title(name)}:"
            yield from (f"  {line}" for line in _bars(dict(sorted(value.items(), key=_largest_first))))


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _largest_first(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]


def _title(name: str) -> str:
    return _KNOWN.get(name, name.replace("_", " "))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_number, value.values()))


def _is_histogram(name: str, value: Any) -> bool:
    return name.endswith("_histogram") and isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _bins(name: str, counts: Sequence[float]) -> dict[str, float]:
    """Counts by bin, without the empty ones at both ends; those of a share divide 0 to 1 into equal parts."""
    filled = [index for index, count in enumerate(counts) if count]
    shown = range(filled[0], filled[-1] + 1) if filled else range(len(counts))
    if not name.endswith("share_histogram"):
        return {str(index): counts[index] for index in shown}
    return {f"{index / len(counts):.0%}–{(index + 1) / len(counts):.0%}": counts[index] for index in shown}


def _bars(counts: Mapping[str, float]) -> Iterator[str]:
    most = max(counts.values(), default=0) or 1
    width = max(map(len, counts))
    digits = max(len(_value(count)) for count in counts.values())
    for name, count in counts.items():
        bar = _BAR * (round(count / most * _BAR_WIDTH) or int(count > 0))
        yield f"{name:>{width}}  {_value(count):>{digits}}  {bar}".rstrip()


def _value(value: Any) -> str:
    if _is_number(value):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    if isinstance(value, list) and all(map(_is_number, value)):
        return ", ".join(_value(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _gate(manifest: Mapping[str, Any]) -> list[str]:
    findings = manifest.get("gate", [])
    if not findings:
        return ["nothing found"]
    width = max(len(str(finding.get("severity", ""))) for finding in findings)
    return [
        f"{finding.get('severity', '')!s:<{width}}  {finding.get('check', '?')} × {finding.get('count', 1):,}: "
        f"{finding.get('message', '')}"
        for finding in findings
    ]


def _quarantine(manifest: Mapping[str, Any]) -> list[str]:
    """Reasons with how many samples they left out, samples' names taken out so that equal ones count together."""
    items = manifest.get("quarantine", [])
    if not items:
        return ["no sample was left out"]
    reasons: Counter[str] = Counter()
    example: dict[str, str] = {}
    for item in items:
        stem = str(item["key"]).rpartition("/")[2]
        reason = str(item["reason"]).replace(stem, "…") if len(stem) > 2 else str(item["reason"])
        reasons[reason] += 1
        example.setdefault(reason, str(item["key"]))
    ordered = sorted(reasons.items(), key=_largest_first)
    lines = [f"{count:,} × {reason}  (e.g. {example[reason]})" for reason, count in ordered[:_MOST_REASONS]]
    if len(ordered) > _MOST_REASONS:
        rest = sum(count for _, count in ordered[_MOST_REASONS:])
        lines.append(f"{rest:,} × {len(ordered) - _MOST_REASONS} other reasons")
    return lines
