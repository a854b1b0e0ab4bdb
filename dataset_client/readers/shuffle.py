"""The order in which examples are read."""

from dataclasses import dataclass

from dataset_client.errors import InvalidSettingError


@dataclass(frozen=True)
class Shuffle:
    """Shuffle files, and examples through a buffer of ``buffer`` ≥ 1 examples.

    The order is a function of ``seed`` and, if ``reshuffle_each_iteration``, of the epoch's number; without
    a seed it is different in each run. Raises `InvalidSettingError` for a buffer that is below 1, or a bool.
    """

    buffer: int
    seed: int | None = None
    reshuffle_each_iteration: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.buffer, bool):
            raise InvalidSettingError(
                f"shuffle={self.buffer} does not say through how many examples",
                remedy="Give the size of the buffer, for example shuffle=1000, or None to keep the order.",
            )
        if self.buffer < 1:
            raise InvalidSettingError(f"a shuffle buffer holds at least 1 example, not {self.buffer}")
