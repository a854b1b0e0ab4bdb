"""The base most handlers use: say what there is and what becomes of one; the rest is done here.

An author writes a `Config`, a ``features`` schema, ``samples()`` and ``examples(sample, rng)``, and gets checked
configs, splits, parallel builds that resume, the same bytes from any number of workers, quarantine and lineage.
"""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .config import HandlerConfig, check_config, describe_options
from .contract import DatasetHandler
from .environment import describe_environment
from .errors import BadSampleError, HandlerError, RawDataError
from .features import Feature, features_json, serialize
from .images import read_raw
from .plan import Plan, PlannedShard, Rejected, Sample, assign_splits, load_samples, select, write_samples
from .rng import SampleRandom
from .shards import SealedShard, ShardWriter, WorkFolder, seal

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
        super().__init__(self.options.model_dump(), base_data_path)

    @abstractmethod
    def features(self) -> Mapping[str, Feature]:
        """The schema of every example, by field name."""

    @abstractmethod
    def samples(self) -> Iterable[Sample | Rejected]:
        """Everything the config selects, in any order, with stable keys; what cannot be used as `Rejected`.

        Runs once, while planning. Raises `RawDataError` if the raw folder is missing or not as published.
        """

    @abstractmethod
    def examples(self, sample: Sample, rng: SampleRandom) -> Iterable[Mapping[str, Any]]:
        """The examples made of one sample: a pure function of it and of ``rng``, run in any worker.

        Raises `BadSampleError` to quarantine the sample; whatever else is raised fails the build.
        """

    def counters(self, example: Mapping[str, Any]) -> dict[str, int]:  # noqa: ARG002 - for subclasses
        """Whole numbers of an example that are summed up by split into the manifest's statistics."""
        return {}

    def read_raw(self, path: Path) -> bytes:
        """Read a file below the raw root and note it, with its sha256, in the lineage of the current sample."""
        data = read_raw(path)
        relative = path.relative_to(self.base_data_path).as_posix()
        self._read_files.append((relative, hashlib.sha256(data).hexdigest()))
        return data

    def plan(self, dataset: str, work: WorkFolder) -> Plan:
        """List, select, split and cut the samples; write the plan. Raises `EmptySelectionError`."""
        options = self.options
        self._take_read_files()
        try:
            samples, rejected = select(self.samples(), options.seed)
        except BadSampleError as error:  # about a file that all samples hang on
            raise RawDataError(str(error)) from error
        by_split = assign_splits(samples[: options.limit], options.splits, options.seed, rejected)
        recipe = {
            "config": options.effective(),
            "features": features_json(self.features()),
            "environment": describe_environment(),
        }
        variations, bound = options.variations_per_sample, options.examples_per_shard
        plan = Plan(
            dataset=dataset,
            found=len(samples),
            shards=tuple(write_samples(work.plan, dataset, by_split, variations, bound, recipe)),
            rejected=tuple(rejected),
            raw_files=tuple(self._take_read_files()),
            **recipe,
        )
        plan.save(work.plan)
        return plan

    def make_shard(self, work: WorkFolder, shard: PlannedShard, done: Callable[[bool], None]) -> SealedShard:
        """Make and seal one shard of the plan in ``work``; ``done(usable)`` is called after each sample."""
        features = self.features()

        def fill(writer: ShardWriter) -> None:
            for sample in load_samples(work.plan, shard):
                self._take_read_files()
                counters: Counter[str] = Counter()
                records: list[bytes] = []
                try:
                    for example in self.examples(sample, SampleRandom(self.options.seed, sample.key)):
                        records.append(serialize(features, example))
                        counters.update(self.counters(example))
                except BadSampleError as error:
                    writer.quarantine(sample.key, str(error))
                    done(False)
                    continue
                except HandlerError:
                    raise
                except Exception as error:
                    raise HandlerError(f"sample '{sample.key}': {type(error).__name__}: {error}") from error
                writer.add(sample.key, records, counters, self._take_read_files())
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

    def _take_read_files(self) -> list[tuple[str, str]]:
        taken, self._read_files = self._read_files, []
        return taken
