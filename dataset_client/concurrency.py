"""The two bridges between threads and event loops: blocking work under a loop, and a loop under blocking
callers.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StoppedError(Exception):
    """Ends blocking work whose caller has gone; never reaches the user."""


def check_stop(stop: threading.Event) -> None:
    """Raise `StoppedError` once ``stop`` is set; blocking work calls this between pieces."""
    if stop.is_set():
        raise StoppedError


async def in_thread(function: Callable[Concatenate[threading.Event, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function(stop, *args)`` in a thread. Cancelling the wait sets ``stop`` and waits until the
    thread has ended.

    The latter matters: the caller is about to clean up files that the thread writes.
    """
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(function, stop, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # collected, so that asyncio does not report it as lost
        raise


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
    result: Future[T] = Future()
    started: Future[Callable[[], object]] = Future()

    async def cancellable() -> T:
        task = asyncio.ensure_future(make_coroutine())
        loop = asyncio.get_running_loop()
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await task

    def body() -> None:
        try:
            result.set_result(asyncio.run(cancellable()))
        except BaseException as error:  # whatever it is, it goes to the caller
            result.set_exception(error)

    thread = threading.Thread(target=body, name="dataset-client", daemon=True)
    thread.start()
    try:
        return result.result()
    except KeyboardInterrupt:
        started.result()()
        thread.join()
        raise
