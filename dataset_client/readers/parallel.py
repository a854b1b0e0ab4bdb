"""A function over many items in threads, results in order."""

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
