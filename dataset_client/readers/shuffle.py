"""The order in which examples are read."""

from dataclasses import dataclass

from dataset_client.errors import InvalidSettingError


@dataclass(frozen=True)
class Shuffle:
    """Shuffle files, and examples through a buffer of ``buffer`` ≥ 1 examples.

    The order is a function of ``seed`` and, if ``reshuffle_each_iteration``, of the epoch's number; without
    a seed it is different in each run. Raises `InvalidSettingError` for a buffer below 1.
    """

    buffer: int
    seed: int | None = None
    reshuffle_each_iteration: bool = True

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise InvalidSettingError(f"a shuffle buffer holds at least 1 example, not {self.buffer}")
