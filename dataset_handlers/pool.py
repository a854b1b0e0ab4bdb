"""Shards made by several worker processes. Only shard numbers go in, only records of sealed shards come out.

A worker that raises, is killed or dies of a segmentation fault ends the build with an error that names the shard;
workers end when their coordinator does, however that dies.
"""

import contextlib
import ctypes
import multiprocessing as mp
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from .errors import ConfigRefusedError, HandlerError, WorkerDiedError, as_fault
from .plan import PlannedShard
from .sample_handler import SampleHandler
from .shards import SealedShard, WorkFolder

_REPORT_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when ``parent`` ends (Linux; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def keep_memory() -> None:
    """Have the C library keep freed memory for the next photo instead of giving it back to the kernel (glibc).

    Else each array of a photo is mapped, filled with zeros page by page, and unmapped again: a sixth of a worker's
    time. Blocks of 32 MiB and more still go back at once, so that one huge photo does not stay.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _work(handler: SampleHandler, work: WorkFolder, channel: Connection, parent: int) -> None:
    """A worker: receives planned shards, sends ``(kind, value)``, ends at None."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides
    keep_memory()
    import cv2

    cv2.setNumThreads(0)  # the pool is the parallelism
    done, bad, reported = 0, 0, time.monotonic()

    def count(usable: bool) -> None:
        nonlocal done, bad, reported
        done += 1
        bad += not usable
        if time.monotonic() - reported > _REPORT_SECONDS:
            channel.send(("progress", (done, bad)))
            done, bad, reported = 0, 0, time.monotonic()

    while (shard := channel.recv()) is not None:
        try:
            record = handler.make_shard(work, shard, count)
        except Exception as error:  # the boundary: whatever a handler raises becomes its fault
            traceback.print_exc()
            channel.send(("error", as_fault(error).to_json()))
            return
        channel.send(("progress", (done, bad)))
        done, bad, reported = 0, 0, time.monotonic()
        channel.send(("shard", record))


def make_shards(
    handler: SampleHandler,
    work: WorkFolder,
    shards: Sequence[PlannedShard],
    workers: int,
    progress: Callable[[int, int], None],
) -> Iterator[SealedShard]:
    """Make ``shards`` with ``workers`` processes; yield each as it is sealed, in any order.

    ``progress(samples, bad samples)`` is told of increments. Raises the first fault as a `HandlerError`; all workers
    have ended when this returns, raises or is closed.
    """
    waiting = list(reversed(shards))
    context: Any = mp.get_context("fork" if sys.platform == "linux" else "spawn")
    busy: dict[Connection, PlannedShard] = {}
    processes: dict[Connection, Any] = {}
    with contextlib.ExitStack() as stack:
        for _ in range(min(workers, len(shards))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(handler, work, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process, ours)
            processes[ours] = process
            busy[ours] = waiting.pop()
            with contextlib.suppress(BrokenPipeError):
                ours.send(busy[ours])
        while busy:
            for channel in wait(list(busy)):
                assert isinstance(channel, Connection)
                try:
                    kind, value = channel.recv()
                except (EOFError, OSError):  # between two messages, or in the middle of one
                    raise _death(processes[channel], busy[channel]) from None
                if kind == "progress":
                    progress(*value)
                elif kind == "error":
                    raise _fault(value)
                else:
                    del busy[channel]
                    if waiting:
                        busy[channel] = waiting.pop()
                    with contextlib.suppress(BrokenPipeError):  # it has died; if it was busy, the next read tells
                        channel.send(busy.get(channel))
                    yield value


def _fault(error: dict[str, Any]) -> HandlerError:
    if "faults" in error:
        return ConfigRefusedError(error["faults"])
    fault = HandlerError(error["message"])
    fault.code = error["code"]
    return fault


def _death(process: Any, shard: PlannedShard) -> WorkerDiedError:
    process.join(5)
    code = process.exitcode
    how = f"exited with status {code}"
    if code is not None and code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (out of memory?)"
    return WorkerDiedError(f"the worker that made {shard.file} {how}")


def _end(process: Any, channel: Connection) -> None:
    channel.close()
    if process.exitcode is None:
        process.join(0.2)
    if process.exitcode is None:
        process.kill()
        process.join()
