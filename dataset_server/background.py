"""Work in threads that may take minutes or hours: in threads of its own, so that no request ever waits for one of them.

`asyncio.to_thread` has few threads, which all requests share; what copies or reads whole archives is done here.
"""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from .durable import remove_tree

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoppedError(Exception):
    """Work in a thread that ended early because it was asked to."""


#: More than there are ever builds, scrubs and checks at a time; they wait for disks, not for processors.
_THREADS = ThreadPoolExecutor(32, thread_name_prefix="background")


def in_background(action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
    """Run ``action`` in one of the threads for long work, from now on; await what is returned for its result."""
    call = functools.partial(contextvars.copy_context().run, action, *args, **kwargs)
    return asyncio.get_running_loop().run_in_executor(_THREADS, call)


def look(action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
    """Run ``action``, which looks at a disk that may never answer, in a thread of its own; await what is returned.

    Nobody need wait for such a thread, not even the process's end.
    """
    result: Future[_T] = Future()
    result.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so the thread may set it

    def run() -> None:
        try:
            result.set_result(action(*args, **kwargs))
        except BaseException as error:  # whatever it is, it goes to who asked
            result.set_exception(error)

    threading.Thread(target=run, name="look", daemon=True).start()
    return asyncio.wrap_future(result)


async def in_thread_to_the_end(action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run ``action`` in the background; who is cancelled meanwhile, once or often, stays until it is over, and then is.

    A thread cannot be stopped: whoever comes next must not meet it at work in the same folder.
    """
    return await _to_the_end(in_background(action, *args, **kwargs), lambda: None)


async def until_stopped(
    action: Callable[Concatenate[threading.Event, _P], _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Like `in_thread_to_the_end`, for an ``action`` that stops soon once its first argument is set."""
    stop = threading.Event()
    return await _to_the_end(in_background(action, stop, *args, **kwargs), stop.set)


def remove_aside(folders: Iterable[Path]) -> None:
    """Remove folders that nobody looks for any more, in a thread that nobody waits for: not even the process's end.

    What is left then, the next server removes.
    """
    threading.Thread(target=_remove_all, args=(list(folders),), name="removal", daemon=True).start()


def _remove_all(folders: list[Path]) -> None:
    for folder in folders:
        remove_tree(folder)


async def _to_the_end(work: asyncio.Future[_T], cancelled: Callable[[], None]) -> _T:
    try:
        await outlast(work, cancelled)
    except asyncio.CancelledError:
        work.exception()  # looked at: nobody else will be told of it
        raise
    return work.result()


async def outlast(work: asyncio.Future[Any], cancelled: Callable[[], None] = lambda: None) -> None:
    """Wait until ``work`` is over, however it ends; who is cancelled meanwhile is so only then.

    ``cancelled`` is called at each cancellation. The work itself is never cancelled.
    """
    interrupted = False
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            interrupted = True
            cancelled()
    if interrupted:
        raise asyncio.CancelledError
