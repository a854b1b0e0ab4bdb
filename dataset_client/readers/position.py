"""Where reading stands: what ``state_dict()`` gives and ``load_state_dict()`` takes back.

::

    {"version": 1, "dataset_id", "digest", "split", "shuffle": bool, "seed": int,
     "epoch": int, "consumed": int}       examples of the epoch that all ranks together were handed

It says nothing of ranks, workers and batches: these may be others when reading goes on.
"""

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dataset_client.errors import InvalidSettingError
from dataset_client.manifest import Shard

_VERSION = 1


@dataclass(frozen=True)
class Source:
    """What is read, and in which order: a position means something only within one source.

    ``digest`` is the sha256 over the split's shards: two datasets of one id may differ, if raw data changed.
    """

    dataset_id: str
    digest: str
    split: str
    shuffle: bool
    seed: int

    @classmethod
    def of(cls, dataset_id: str, shards: Sequence[Shard], split: str, *, shuffle: bool, seed: int) -> "Source":
        """The source of a split; raises `InvalidSettingError` for a seed that is no integer ≥ 0."""
        natural = require_count("seed", seed, least=0)
        digest = hashlib.sha256("\n".join(f"{shard.sha256} {shard.examples}" for shard in shards).encode())
        return cls(dataset_id, digest.hexdigest(), split, bool(shuffle), natural)


@dataclass(frozen=True)
class Position:
    """``consumed`` examples of ``epoch`` are done."""

    epoch: int = 0
    consumed: int = 0


def to_state(source: Source, position: Position) -> dict[str, Any]:
    """What can be written as JSON and read back by `from_state`."""
    return {"version": _VERSION, **asdict(source), **asdict(position)}


def from_state(state: Mapping[str, Any], source: Source, count: int) -> Position:
    """The position of ``state``; raises `InvalidSettingError` (code ``state_mismatch``) if it is none in ``source``,
    which has ``count`` examples.
    """
    expected = {"version": _VERSION, **asdict(source)}
    try:
        different = [name for name, value in expected.items() if state[name] != value]
        position = Position(int(state["epoch"]), int(state["consumed"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _mismatch(f"this is no state of a reader: {type(error).__name__}: {error}") from error
    if different:
        told = "; ".join(f"{name} was {state[name]!r} and is {expected[name]!r}" for name in different)
        raise _mismatch(f"the state is of another order of examples: {told}")
    if position.epoch < 0 or not 0 <= position.consumed <= count:
        raise _mismatch(f"{position} cannot be: there are {count} examples")
    return position


def _mismatch(message: str) -> InvalidSettingError:
    return InvalidSettingError(
        message,
        code="state_mismatch",
        remedy="Resume with the dataset, split, shuffle and seed it was taken from, or begin anew without it.",
    )


def require_count(name: str, value: object, *, least: int) -> int:
    """``value`` as an int, if it is an integer ≥ ``least``, numpy's too; else `InvalidSettingError`."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # whatever it is
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise InvalidSettingError(f"{name}={value!r} is no integer from {least} on", remedy=f"Give {name} a number.")
    return count
