"""In which order examples come, and which of them are whose: pure functions.

**A global shuffle** of N examples is a permutation that is computed, not stored: "swap-or-not" (Hoang, Morris and
Rogaway, CRYPTO 2012). In each of 128 rounds, example x has the partner K − x mod N, with a key K in [0, N) of that
round; a bit hashed from the round and the larger of both says whether they change places. Each round changes places in
pairs, so the whole is a permutation for every N, and as each round is its own inverse, it can be undone. Every position
is computed by itself, in constant memory, and the same on every machine and with every version of numpy: all of it is
integer arithmetic modulo 2**64.

**Steps.** In step t, R ranks with batches of B consume the positions [t·R·B, (t + 1)·R·B) of the global order, and rank
r has the r-th run of B among them. In the last step m < R·B may be left: rank r has [⌊m·r/R⌋, ⌊m·(r + 1)/R⌋) of them,
so all ranks do the same number of steps, each example comes exactly once, and with m < R some batches are empty.
``drop_last`` leaves these m out.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]

_ROUNDS = 128
#: Positions permuted at a time: enough that numpy's own costs per call do not count, and half a megabyte.
_BLOCK = 8192


@dataclass(frozen=True)
class Order:
    """The order of ``count`` examples in an epoch: a function of (count, seed, epoch) alone; ``seed`` None keeps the
    order in which they are stored.
    """

    count: int
    seed: int | None
    epoch: int = 0

    def examples(self, positions: "Numbers") -> "Numbers":
        """The numbers of the examples at ``positions``, int64, each in [0, count)."""
        import numpy as np

        if self.seed is None or self.count < 2:
            return positions
        multipliers = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # of MurmurHash3's finaliser
        shift = np.uint64(32)
        numbers = positions.astype(np.int64)
        for partner_key, bit_key in self._keys():
            partners = partner_key - numbers
            partners += self.count * (partners < 0)
            mixed = np.maximum(numbers, partners).astype(np.uint64) + np.uint64(bit_key)
            for multiplier in multipliers:
                mixed ^= mixed >> shift
                mixed *= multiplier
            numbers = np.where(mixed >> np.uint64(63), partners, numbers)
        return numbers

    def _keys(self) -> list[tuple[int, int]]:
        """Of each round the partner's key in [0, count) and the bit's in [0, 2**64)."""
        stream = hashlib.shake_256(f"order 1\n{self.seed}\n{self.epoch}".encode()).digest(16 * _ROUNDS)
        return [(partner % self.count, bit) for partner, bit in struct.iter_unpack("<QQ", stream)]


class Schedule:
    """Which examples rank ``rank`` of ``ranks`` has in which step, after ``consumed`` examples of the epoch."""

    def __init__(
        self,
        order: Order,
        *,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
        consumed: int = 0,
    ) -> None:
        self.order = order
        self.batch_size, self.rank, self.ranks, self.consumed = batch_size, rank, ranks, consumed
        full, rest = divmod(order.count - consumed, batch_size * ranks)
        self._steps = full + (rest > 0 and not drop_last)
        self._in_block = max(1, _BLOCK // batch_size)
        self._block: tuple[int, Numbers, list[int]] | None = None

    def __len__(self) -> int:
        return self._steps

    def consumed_after(self, step: int) -> int:
        """How many examples of the epoch all ranks together have had after ``step``."""
        return min(self.consumed + (step + 1) * self.ranks * self.batch_size, self.order.count)

    def span(self, step: int) -> tuple[int, int]:
        """The positions [begin, end) in the global order that this rank has in ``step``."""
        first = self.consumed + step * self.ranks * self.batch_size
        left = self.consumed_after(step) - first
        return first + left * self.rank // self.ranks, first + left * (self.rank + 1) // self.ranks

    def examples(self, step: int) -> "Numbers":
        """The examples of this rank's batch in ``step`` of [0, len), in order."""
        number, place = divmod(step, self._in_block)
        block = self._block
        if block is None or block[0] != number:
            block = self._block = (number, *self._permuted(number))
        _, numbers, edges = block
        return numbers[edges[place] : edges[place + 1]]

    def _permuted(self, block: int) -> "tuple[Numbers, list[int]]":
        """The examples of the steps of a block, and where among them each step's begin."""
        import numpy as np

        steps = range(block * self._in_block, min((block + 1) * self._in_block, self._steps))
        spans = [self.span(step) for step in steps]
        edges = [0, *np.cumsum([end - begin for begin, end in spans]).tolist()]
        return self.order.examples(np.concatenate([np.arange(*span) for span in spans])), edges
