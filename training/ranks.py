"""Several processes, on one host or many, that train one model: each has a part of every batch.

On Keras' JAX backend, whose compiler cuts a step over all devices: gradients are summed, and batch normalization sees
the whole batch, as if there were one process. Ranks meet at a coordinator, the address of rank 0. ::

    dataset-train fit … --ranks 0/2@10.0.0.5:7777        on the first host
    dataset-train fit … --ranks 1/2@10.0.0.5:7777        on the second
"""

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.errors import BackendError, OptionsError

_FORM = re.compile(r"(\d+)/(\d+)@([^@\s]+:\d+)")


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``ranks``; the first leads: it alone writes files."""

    rank: int = 0
    ranks: int = 1
    distribution: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Within it, variables are on all devices, and batches are parts of one."""
        return self.distribution.scope() if self.distribution is not None else nullcontext()

    def agree(self, values: dict[str, float]) -> dict[str, float]:
        """The leader's values, on all ranks, to the bit. All of them call it, or it waits for ever."""
        if self.ranks == 1:
            return values
        from jax.experimental import multihost_utils

        # JAX has no float64 unless told to; the bytes of one, it has.
        told = np.array(list(values.values()), np.float64).view(np.uint32)
        led = np.asarray(multihost_utils.broadcast_one_to_all(told))
        return dict(zip(values, led.view(np.float64).tolist(), strict=True))

    def highest(self, value: int) -> int:
        """The highest of all ranks' values. All of them call it."""
        if self.ranks == 1:
            return value
        from jax.experimental import multihost_utils

        return int(np.max(multihost_utils.process_allgather(np.array(value, np.int32))))


ALONE = Ranks()


def parse_ranks(text: str) -> tuple[int, int, str]:
    """(rank, ranks, address) of "RANK/RANKS@HOST:PORT". Raises `OptionsError`."""
    found = _FORM.fullmatch(text)
    if not found or not int(found[1]) < int(found[2]):
        raise OptionsError(
            f"ranks are RANK/RANKS@HOST:PORT, such as 0/2@10.0.0.5:7777 for the first of two, not {text!r}"
        )
    return int(found[1]), int(found[2]), found[3]


def join(text: str, backend: str) -> Ranks:
    """Meet the other ranks; waits until all are there. To be called before Keras or JAX has done anything.

    Raises `OptionsError`, and `BackendError` on a backend other than JAX, or if the others do not come.
    """
    rank, ranks, address = parse_ranks(text)
    if backend != "jax":
        raise BackendError(
            f"several ranks train on JAX, and the backend is {backend}: set KERAS_BACKEND=jax, or leave ranks out"
        )
    if ranks == 1:
        return ALONE
    import jax

    try:
        # What CPUs talk by; GPUs have their own, whatever this says.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, ranks, rank)
    except (RuntimeError, ValueError) as error:
        raise BackendError(f"rank {rank} cannot join the others at {address}: {error}") from error
    import keras

    # Batches come cut into parts already.
    return Ranks(rank, ranks, keras.distribution.DataParallel(auto_shard_dataset=False))
