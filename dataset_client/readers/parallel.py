"""A function over many items in threads, results in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, prefetch: int
) -> Generator[Result, None, None]:
    """``function`` of each item, in the items' order; at most ``prefetch`` results are ready or under way besides the
    one handed out.

    With 0 ``workers``, or 0 ``prefetch``, all happens in the caller's thread, when it asks. What the function raises
    comes out at its place and ends the iteration. The threads end with it, and when the iterator is closed or
    collected: what has begun is finished, nothing more is begun.
    """
    if not workers or not prefetch:
        yield from map(function, items)
        return
    waiting = iter(items)
    threads = ThreadPoolExecutor(min(workers, prefetch), thread_name_prefix="dataset-reader")
    try:
        begun: deque[Future[Result]] = deque(threads.submit(function, item) for item in islice(waiting, prefetch))
        while begun:
            result = begun.popleft().result()
            begun.extend(threads.submit(function, item) for item in islice(waiting, 1))
            yield result
            del result  # not held while the next one is waited for
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def as_they_come(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, prefetch: int, stop: threading.Event
) -> Generator[Result, None, None]:
    """As `in_order`, for items that are long in coming: what is ready is handed out while the next one is waited for.

    ``workers`` and ``prefetch`` are at least 1. ``stop`` is set at the end; ``items`` should end soon after, in the
    thread in which they are waited for.
    """
    ready: queue.SimpleQueue[Future[Result] | None] = queue.SimpleQueue()
    room = threading.Semaphore(prefetch)
    threads = ThreadPoolExecutor(min(workers, prefetch), thread_name_prefix="dataset-reader")

    def feed() -> None:
        try:
            for item in items:
                room.acquire()
                if stop.is_set():
                    return
                ready.put(threads.submit(function, item))
            ready.put(None)
        except BaseException as error:  # whatever it is, it comes out at its place
            failed: Future[Result] = Future()
            failed.set_exception(error)
            ready.put(failed)

    threading.Thread(target=feed, name="dataset-feeder", daemon=True).start()
    try:
        while (future := ready.get()) is not None:
            result = future.result()
            room.release()
            yield result
            del future, result  # not held while the next one is waited for
    finally:
        stop.set()
        room.release()  # for `feed`, which may wait for it
        threads.shutdown(wait=False, cancel_futures=True)
