"""What a measured process says of its time; imports nothing that is not Python's own."""

import json
import time


def say(event: str, **more: object) -> None:
    """Print an event with the time and the CPU seconds used so far: ``clock`` where the work starts, when all is
    imported, and ``done`` where it ends.
    """
    moment = {"monotonic": time.monotonic(), "cpu": time.process_time()}
    print(json.dumps({"event": event, **moment, **more}), flush=True)
