"""The base most handlers use: say what there is and what becomes of one; the rest is done here.

An author writes a `Config`, a ``features`` schema, ``samples()`` and ``examples(sample, rng)``, and gets checked
configs, splits, parallel builds that resume, the same bytes from any number of workers, quarantine and lineage.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .config import HandlerConfig, check_config, describe_options
from .contract import DatasetHandler
from .environment import describe_environment
from .errors import BadSampleError, HandlerError, RawDataError, as_fault
from .features import Feature, features_json, serialize
from .images import read_raw
from .plan import (
    Plan,
    PlannedShard,
    Rejected,
    Sample,
    assign_splits,
    keep_one_of_each,
    load_samples,
    located,
    select,
    write_samples,
)
from .rng import SampleRandom
from .shards import SealedShard, ShardWriter, WorkFolder, seal
from .statistics import add

if TYPE_CHECKING:
    import tensorflow as tf


class SampleHandler(DatasetHandler):
    """A handler described sample by sample. Subclasses set ``Config`` and implement the abstract methods."""

    Config: ClassVar[type[HandlerConfig]] = HandlerConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give each subclass the contract's ``config_options``, read off its ``Config``."""
        super().__init_subclass__(**kwargs)
        if "config_options" not in cls.__dict__:
            cls.config_options = staticmethod(lambda: describe_options(cls.Config))  # type: ignore[method-assign]

    @staticmethod
    def config_options() -> dict[str, Any]:
        """Describe the options of ``Config``; subclasses get their own."""
        return describe_options(HandlerConfig)

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        """Check ``config``; its options become attributes. Raises `ConfigRefusedError` with every fault."""
        self.options = check_config(type(self).Config, config)
        self._read_files: list[tuple[str, str]] = []
        self._counted: dict[str, int] = {}
        self._raw_prefix = f"{Path(base_data_path)}{os.sep}"
        super().__init__(self.options.model_dump(), base_data_path)

    @abstractmethod
    def features(self) -> Mapping[str, Feature]:
        """The schema of every example, by field name."""

    @abstractmethod
    def samples(self) -> Iterable[Sample | Rejected]:
        """Everything the config selects, in any order, with stable keys; what cannot be used as `Rejected`.

        Runs once, while planning. Raises `RawDataError` if the raw folder is missing or not as published.
        """

    def complete_samples(self, split: str, samples: list[Sample]) -> list[Sample]:  # noqa: ARG002 - for subclasses
        """The samples of a split with whatever they take from others of it, which `samples` cannot know.

        Runs once for each split, while planning; keys and order stay. What one split lends to another would leak.
        """
        return samples

    @abstractmethod
    def examples(self, sample: Sample, rng: SampleRandom) -> Iterable[Mapping[str, Any]]:
        """The examples made of one sample: a pure function of it and of ``rng``, run in any worker.

        Raises `BadSampleError` to quarantine the sample; whatever else is raised fails the build.
        """

    def complete_splits(self, by_split: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
        """`complete_samples` for every split; for subclasses that must share something out between the splits."""
        return {split: self.complete_samples(split, samples) for split, samples in by_split.items()}

    def variations_of(self, sample: Sample) -> int:  # noqa: ARG002 - for subclasses
        """How many examples are made of a sample, for shards of about equal size."""
        return self.options.variations_per_sample

    def counters(self, example: Mapping[str, Any]) -> dict[str, int]:  # noqa: ARG002 - for subclasses
        """Whole numbers of an example that are summed up by split into the manifest's statistics."""
        return {}

    def label_names(self) -> Mapping[int, str]:
        """Names of the levels of ``mask`` that are classes, for the manifest; none where a mask is of one subject.

        0 is named where it is a class, too, and not what is left over; what is void has no name.
        """
        return {}

    def fingerprint(self, sample: Sample) -> int | None:  # noqa: ARG002 - for subclasses
        """A perceptual hash of the sample's photo (`selection.near_duplicates`), or None where there is no such thing.

        Needed where several splits are made: near-duplicates must not be on both sides of one.
        """
        return None

    def count(self, counters: Mapping[str, int]) -> None:
        """Add whole numbers about the current sample itself to the statistics; for `examples` to call."""
        add(self._counted, counters)

    def read_raw(self, path: Path) -> bytes:
        """Read a file below the raw root and note it, with its sha256, in the lineage of the current sample.

        Raises `BadSampleError` for one that cannot be read, or is elsewhere.
        """
        relative = str(path).removeprefix(self._raw_prefix)  # pathlib's way takes as long as reading a small file
        if relative.startswith(os.sep) or os.sep != "/":
            if not path.is_relative_to(self.base_data_path):
                raise BadSampleError(f"{path.name}: is not below the raw root")
            relative = path.relative_to(self.base_data_path).as_posix()
        if ".." in relative and ".." in relative.split("/"):
            raise BadSampleError(f"{path.name}: is not below the raw root")
        data = read_raw(path)
        self._read_files.append((relative, hashlib.sha256(data).hexdigest()))
        return data

    def plan(self, dataset: str, work: WorkFolder, workers: int = 1) -> Plan:
        """List, select, split and cut the samples; write the plan. Raises `EmptySelectionError`.

        ``workers`` processes look for near-duplicates, where that is to be done.
        """
        options = self.options
        self.take_read_files()
        try:
            samples, rejected = select(self.samples(), options.seed)
        except BadSampleError as error:  # about a file that all samples hang on
            raise RawDataError(str(error)) from error
        found, samples = len(samples), samples[: options.limit]
        groups = self._near_duplicates(samples, workers)
        removed: list[Rejected] = []
        if options.near_duplicates == "remove":
            samples, removed = keep_one_of_each(samples, groups)
        leaders = {sample.key: group[0].key for group in groups for sample in group}
        by_split = self.complete_splits(assign_splits(samples, options.splits, options.seed, rejected, leaders))
        recipe = {
            "config": options.effective(),
            "features": features_json(self.features()),
            "environment": describe_environment(),
        }
        plan = Plan(
            dataset=dataset,
            found=found,
            shards=tuple(
                write_samples(work.plan, dataset, by_split, self.variations_of, options.examples_per_shard, recipe)
            ),
            rejected=tuple(rejected),
            raw_files=tuple(self.take_read_files()),
            removed=tuple(removed),
            near_duplicates=located(groups, by_split),
            labels={str(level): name for level, name in self.label_names().items()},
            **recipe,
        )
        plan.save(work.plan)
        return plan

    def _near_duplicates(self, samples: list[Sample], workers: int) -> list[list[Sample]]:
        """Groups of two and more samples that show the same photo, where that is asked for and matters."""
        options = self.options
        splits = len(options.splits) if options.splits else len({sample.split for sample in samples})
        if options.near_duplicates == "ignore" or (options.near_duplicates == "group" and splits < 2):
            return []
        from .selection.fingerprints import fingerprints
        from .selection.near_duplicates import near_duplicate_groups

        noted = self.take_read_files()
        found = fingerprints(self, samples, workers)
        self._read_files = noted + sorted({pair for _, files in found for pair in files})
        numbers = near_duplicate_groups([number for number, _ in found])
        groups: dict[int, list[Sample]] = {}
        for number, sample in zip(numbers, samples, strict=True):
            groups.setdefault(number, []).append(sample)
        several = [sorted(group, key=lambda sample: sample.key) for group in groups.values() if len(group) > 1]
        return sorted(several, key=lambda group: group[0].key)

    def make_shard(self, work: WorkFolder, shard: PlannedShard, done: Callable[[bool], None]) -> SealedShard:
        """Make and seal one shard of the plan in ``work``; ``done(usable)`` is called after each sample."""
        features = self.features()

        def fill(writer: ShardWriter) -> None:
            for sample in load_samples(work.plan, shard):
                self.take_read_files()
                self._counted = {}
                mark = writer.mark()
                try:
                    for example in self.examples(sample, SampleRandom(self.options.seed, sample.key)):
                        writer.write(serialize(features, example))
                        add(self._counted, self.counters(example))
                except BadSampleError as error:
                    writer.roll_back(mark)
                    writer.quarantine(sample.key, str(error), self.take_read_files())
                    done(False)
                    continue
                except HandlerError:
                    raise
                except Exception as error:
                    raise as_fault(error, f"sample '{sample.key}': ") from error
                writer.close_sample(sample.key, mark, self._counted, self.take_read_files())
                done(True)

        return seal(work, shard, fill)

    def as_tfrecord(self) -> list[str]:
        """Build the whole dataset in the current directory with one worker; return its shard files in order."""
        work = WorkFolder(Path.cwd())
        work.create()
        plan = self.plan(type(self).__name__.removesuffix("Handler").lower(), work)
        return [str(work.dataset / self.make_shard(work, shard, lambda _usable: None).file) for shard in plan.shards]

    def tf_records_mapper(self, files: list[str]) -> "tf.data.Dataset":
        """Open shards of this handler as a ``tf.data.Dataset`` of decoded examples (needs TensorFlow)."""
        from .tf_mapper import decode_records

        return decode_records(files, features_json(self.features()))

    def take_read_files(self) -> list[tuple[str, str]]:
        """The files read since this was last asked, as (path below the raw root, sha256)."""
        taken, self._read_files = self._read_files, []
        return taken
