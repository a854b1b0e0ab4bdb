"""The plan of a dataset: which samples, in which split and shard, in which order. Written before the first shard.

A plan is a folder, so that a worker reads only what it makes::

    plan.json          header: dataset, config, features, shards, what was left out, environment
    shard-00003.json   shard 3: {recipe: digest of config, features, environment; samples: [[key, data], …]}

Order and cut are fixed by the config alone: samples are sorted by a hash of (seed, key), which shuffles them, then cut
into shards of equal size.
"""

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

from .errors import EmptySelectionError, RequestError
from .files import read_json, write_json, write_large_json
from .rng import rank

PLAN_FORMAT = 1

#: A split is cut into at least this many shards, if that leaves each this many examples, so that small datasets
#: are built by several workers too.
_MIN_SHARDS = 8
_MIN_EXAMPLES = 16
_NUMBERS = (float, int)


@dataclass(frozen=True)
class Sample:
    """A source sample: a stable ``key``, the publisher's ``split``, and what a worker needs (JSON) as ``data``.

    The same data must come out each time, in the same order: shards that were made are kept by that.
    """

    key: str
    data: dict[str, Any] = field(default_factory=dict)
    split: str = "train"


@dataclass(frozen=True)
class Rejected:
    """A source sample that cannot be used, found while planning; listed in the manifest's quarantine."""

    key: str
    reason: str


@dataclass(frozen=True)
class PlannedShard:
    """One shard to make: its ``number`` in the dataset, its ``file`` and how many samples go into it."""

    number: int
    file: str
    split: str
    samples: int
    sha256: str  # of its samples file: a sealed shard is reused only for the same samples made in the same way


@dataclass(frozen=True)
class Plan:
    """The header of a plan; see the module for its files."""

    dataset: str
    config: dict[str, Any]
    features: dict[str, Any]
    found: int  # usable samples there are; ``limit`` may leave fewer in the shards
    shards: tuple[PlannedShard, ...]
    rejected: tuple[Rejected, ...]
    raw_files: tuple[tuple[str, str], ...]  # (path below the raw root, sha256) of what planning itself read
    environment: dict[str, Any]
    removed: tuple[Rejected, ...] = ()  # usable samples that the config does not want
    near_duplicates: tuple[tuple[tuple[str, str], ...], ...] = ()  # groups of (split, key) that show one photo
    labels: dict[str, str] = field(default_factory=dict)  # names of the mask's levels, where these are classes

    @property
    def samples(self) -> int:
        """Samples over all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of their shards."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    def save(self, folder: Path) -> None:
        """Write the header; the samples files are there already."""
        write_json(folder / "plan.json", {"format": PLAN_FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read a header back; raises `RequestError` if there is none of this format."""
        try:
            stored = read_json(folder / "plan.json")
        except (OSError, ValueError) as error:
            raise RequestError(f"there is no plan in {folder}: {error}") from error
        if not isinstance(stored, dict) or stored.pop("format", None) != PLAN_FORMAT:
            raise RequestError(f"the plan in {folder} is of another format; remove the folder and plan again")
        try:
            stored["shards"] = tuple(PlannedShard(**shard) for shard in stored["shards"])
            stored["rejected"] = tuple(Rejected(**rejected) for rejected in stored["rejected"])
            stored["removed"] = tuple(Rejected(**removed) for removed in stored["removed"])
            stored["raw_files"] = tuple((path, sha256) for path, sha256 in stored["raw_files"])
            groups = stored["near_duplicates"]
            stored["near_duplicates"] = tuple(tuple((split, key) for split, key in group) for group in groups)
            return cls(**stored)
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(
                f"the plan in {folder} is damaged ({error}); remove the folder and plan again"
            ) from error


def samples_file(folder: Path, number: int) -> Path:
    """Where a plan keeps the samples of a shard."""
    return folder / f"shard-{number:05}.json"


def load_samples(folder: Path, shard: PlannedShard) -> list[Sample]:
    """The samples of a shard, in order; raises `RequestError` if they are not those of the header."""
    path = samples_file(folder, shard.number)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}); remove the folder and plan again") from error
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise RequestError(f"{path} does not belong to its plan; remove the folder and plan again")
    return [Sample(key, data, shard.split) for key, data in json.loads(content)["samples"]]


def select(found: Iterable[Sample | Rejected], seed: int) -> tuple[list[Sample], list[Rejected]]:
    """Separate samples from rejected ones, refuse doubled keys and such as are no text, shuffle by hash.

    Raises `TypeError` for data that is not JSON.
    """
    samples: dict[str, Sample] = {}
    rejected: list[Rejected] = []
    listed: list[Sample] = []
    for item in found:
        if isinstance(item, Rejected):
            rejected.append(Rejected(_as_text(item.key), _as_text(item.reason)))
        elif not (is_text(item.key) and _is_text_throughout(item.data)):
            rejected.append(Rejected(_as_text(item.key), "its name is not UTF-8; rename the file"))
        else:
            listed.append(item)
    for _, equal in groupby(sorted(listed, key=lambda sample: sample.key), key=lambda sample: sample.key):
        first, *others = equal
        if others:  # whatever order they came in, the same one is kept
            first = min([first, *others], key=lambda sample: json.dumps(sample.data))
        samples[first.key] = first
        rejected += [Rejected(first.key, "another sample has the same key") for _ in others]
    ordered = sorted(samples.values(), key=lambda sample: rank(seed, sample.key, "order"))
    return ordered, sorted(rejected, key=lambda item: (item.key, item.reason))


def is_text(string: str) -> bool:
    """Whether ``string`` can be written as UTF-8; names of files may hold bytes that cannot."""
    return _as_text(string) == string


def _is_text_throughout(value: Any) -> bool:
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, Mapping):
        return all(is_text(key) and _is_text_throughout(item) for key, item in value.items())
    if isinstance(value, list | tuple):  # of numbers mostly, the points of polygons
        return all(_is_text_throughout(item) for item in value if not isinstance(item, _NUMBERS))
    if value is None or isinstance(value, _NUMBERS):
        return True
    raise TypeError(f"the data of a sample holds {type(value).__name__}, which is not JSON")


def _as_text(string: str) -> str:
    return string.encode(errors="backslashreplace").decode()


def assign_splits(
    samples: list[Sample],
    fractions: Mapping[str, float] | None,
    seed: int,
    rejected: Sequence[Rejected] = (),
    groups: Mapping[str, str] | None = None,
) -> dict[str, list[Sample]]:
    """Samples by split, in order: the publisher's splits, or ``fractions`` of all samples drawn by ``seed``.

    Sizes are the fractions rounded so that they sum up. ``groups`` gives the key of the group's first member for
    samples that must not be parted; a split ends after a group it has begun. Raises `EmptySelectionError` for a
    split without a sample.
    """
    if not samples:
        why = f"; of those rejected, the first: {rejected[0].reason}" if rejected else ""
        raise EmptySelectionError(f"the config selects no sample; widen the selection or check the raw folder{why}")
    by_split: dict[str, list[Sample]] = {}
    if fractions is None:
        for sample in samples:
            by_split.setdefault(sample.split, []).append(sample)
        return dict(sorted(by_split.items(), key=lambda item: _conventional_order(item[0])))
    leaders = groups or {}
    drawn = sorted(
        samples,
        key=lambda sample: (rank(seed, leaders.get(sample.key, sample.key), "split"), rank(seed, sample.key, "split")),
    )
    start, filled, whole = 0, 0.0, math.fsum(fractions.values())
    chosen: dict[str, str] = {}
    for name, fraction in sorted(fractions.items(), key=lambda item: _conventional_order(item[0])):
        filled += fraction
        end = _nearest_boundary(drawn, leaders, round(filled / whole * len(drawn)))
        if end <= start:
            together = " (photos that show the same stay together)" if leaders else ""
            raise EmptySelectionError(
                f"split '{name}' gets none of {len(samples)} samples at a fraction of {fraction:g}{together}; "
                "raise the fraction or the limit"
            )
        chosen.update((sample.key, name) for sample in drawn[start:end])
        by_split[name] = []
        start = end
    for sample in samples:
        by_split[chosen[sample.key]].append(sample)
    return by_split


def _nearest_boundary(drawn: Sequence[Sample], leaders: Mapping[str, str], place: int) -> int:
    """The place nearest to ``place`` where no group of ``drawn`` is parted; the later of two."""

    def parts(cut: int) -> bool:
        return 0 < cut < len(drawn) and leaders.get(drawn[cut].key, "") == leaders.get(drawn[cut - 1].key)

    before = after = place
    while parts(after):
        after += 1
    while parts(before):
        before -= 1
    return after if after - place <= place - before else before


def keep_one_of_each(
    samples: Sequence[Sample], groups: Sequence[Sequence[Sample]]
) -> tuple[list[Sample], list[Rejected]]:
    """One sample of each group, and the others as rejected; what is held out for testing is kept before the rest."""
    removed: dict[str, Rejected] = {}
    for group in groups:
        kept = max(group, key=lambda sample: (_conventional_order(sample.split)[0] % 3, sample.key))
        for sample in group:
            if sample is not kept:
                removed[sample.key] = Rejected(sample.key, f"shows the same photo as '{kept.key}', which is kept")
    return [sample for sample in samples if sample.key not in removed], list(removed.values())


def located(
    groups: Sequence[Sequence[Sample]], by_split: Mapping[str, Sequence[Sample]]
) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Groups as (split, key) of each member that is in a split; without those of which fewer than two are left.

    Samples of one file, by ``data["photo"]``, are no near-duplicates.
    """
    splits = {sample.key: split for split, samples in by_split.items() for sample in samples}
    found = []
    for group in groups:
        left = [sample for sample in group if sample.key in splits]
        photos = [sample.data.get("photo", sample.key) for sample in left]
        if any(photo != photos[0] for photo in photos):
            found.append(tuple((splits[sample.key], sample.key) for sample in left))
    return tuple(found)


def _conventional_order(split: str) -> tuple[int, str]:
    known = {"train": 0, "validation": 1, "test": 2}
    return known.get(split, 3), split


def cut_into_shards(variations: Sequence[int], examples_per_shard: int) -> list[tuple[int, int]]:
    """First and last-but-one sample of each shard of a split, by how many examples are made of each sample.

    Shards are of about equal size: enough of them for ``examples_per_shard``, more where that helps workers. The
    variations of a sample stay together, also where they are more than ``examples_per_shard``.
    """
    largest, total = max(variations), sum(variations)
    capacity = max(1, examples_per_shard - largest + 1)
    if largest == min(variations):
        capacity = max(largest, examples_per_shard // largest * largest)
    needed = math.ceil(total / capacity)
    helpful = min(_MIN_SHARDS, total // _MIN_EXAMPLES)
    count = min(len(variations), max(1, needed, helpful))
    made = list(accumulate(variations))
    ends = [bisect_right(made, total * (index + 1) // count) for index in range(count - 1)]
    cuts = [0, *ends, len(variations)]
    return [(start, end) for start, end in pairwise(cuts) if end > start]


def write_samples(
    folder: Path,
    dataset: str,
    by_split: Mapping[str, list[Sample]],
    variations_of: Callable[[Sample], int],
    examples_per_shard: int,
    recipe: Mapping[str, Any],
) -> list[PlannedShard]:
    """Cut each split into shards (`cut_into_shards`) and write their samples files.

    ``recipe`` is whatever else decides the bytes: it goes into each samples file by its digest, so that a shard that
    was made of the same samples in another way is not taken for one of this plan.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    planned: list[PlannedShard] = []
    for split, samples in by_split.items():
        cuts = cut_into_shards([variations_of(sample) for sample in samples], examples_per_shard)
        for index, (start, end) in enumerate(cuts):
            part = samples[start:end]
            number = len(planned)
            path = samples_file(folder, number)
            write_large_json(path, {"recipe": digest, "samples": [[sample.key, sample.data] for sample in part]})
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            file = f"{dataset}-{split}.tfrecord-{index:05}-of-{len(cuts):05}"
            planned.append(PlannedShard(number, file, split, len(part), sha256))
    return planned
