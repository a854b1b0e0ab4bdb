"""The two bridges between threads and event loops: blocking work under a loop, and a loop under blocking
callers.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StoppedError(Exception):
    """Ends blocking work whose caller has gone; never reaches the user."""


def check_stop(stop: threading.Event) -> None:
    """Raise `StoppedError` once ``stop`` is set; blocking work calls this between pieces."""
    if stop.is_set():
        raise StoppedError


async def in_thread(
    function: Callable[[threading.Event, *Ts], T], *args: *Ts, interrupt: Callable[[], None] | None = None
) -> T:
    """Run ``function(stop, *args)`` in a thread. Cancelling the wait sets ``stop``, calls ``interrupt``,
    which ends what the thread blocks on, and waits until the thread has ended.

    The latter matters: the caller is about to clean up files that the thread writes. The interpreter's end does not
    wait: then it is as if the process was killed.
    """
    stop = threading.Event()
    # not a task: asyncio.run cancels all tasks after a second Ctrl-C, and would call this one done
    work = asyncio.wrap_future(_start(functools.partial(function, stop, *args)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        if interrupt is not None:
            interrupt()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):  # asked again, while we are at it
                await asyncio.wait([work])
        work.exception()  # collected, so that asyncio does not report it as lost
        raise


async def in_abandonable_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run ``function(*args)`` in a thread that nobody waits for once the wait is cancelled, not even the
    interpreter's end. Only for what leaves nothing to clean up.
    """
    return await asyncio.wrap_future(_start(functools.partial(function, *args)))


def _start(function: Callable[[], T]) -> Future[T]:
    """Run ``function`` in a daemon thread."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so the thread may set it

    def body() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # whatever it is, it goes to the caller
            result.set_exception(error)

    threading.Thread(target=body, name="dataset-client", daemon=True).start()
    return result


def run_sync(make_coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from blocking code, also where the calling thread's loop runs (a
    notebook).

    In the latter case a thread of our own runs it, and the caller's loop stands still meanwhile. Ctrl-C
    cancels the coroutine, lets it clean up, and is then raised as `KeyboardInterrupt`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make_coroutine())
    return _run_in_own_thread(make_coroutine)


def _run_in_own_thread(make_coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
    started: Future[Callable[[], object]] = Future()

    async def cancellable() -> T:
        task = asyncio.ensure_future(make_coroutine())
        loop = asyncio.get_running_loop()
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await task

    result = _start(lambda: asyncio.run(cancellable()))
    try:
        return result.result()
    except KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has just ended by itself
            started.result()()
        concurrent.futures.wait([result])
        raise
