"""Being told to stop: SIGTERM (of a scheduler, a container) and Ctrl-C end a training between two steps, saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """``signal`` is the number of the signal that has come, None until then."""

    signal: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes the first SIGTERM or SIGINT instead of dying of it; a second SIGINT is `KeyboardInterrupt` as ever.

    Only the main thread may handle signals: elsewhere they do what they did before.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        request.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
