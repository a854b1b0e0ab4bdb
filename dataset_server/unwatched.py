"""What nobody waits for any more: neither listens to, nor asks for now and then."""

import time
from collections.abc import Collection

from .hub import Hub


class Unwatched:
    """Tells what nobody has listened to or asked for during ``seconds``, since it was first looked at."""

    def __init__(self, hub: Hub, seconds: float) -> None:
        self._hub = hub
        self._seconds = seconds
        self._watched: dict[str, float] = {}

    def is_so(self, name: str, others: Collection[str] = ()) -> bool:
        """Whether that is so of a topic or dataset, and of those of ``others``, which stand for it as well."""
        now = time.monotonic()
        watched = max(self._watched.get(name, now), self._hub.last_watched([name, *others]))
        self._watched[name] = watched
        return now - watched > self._seconds

    def keep(self, names: Collection[str]) -> None:
        """Forget all but these."""
        self._watched = {name: watched for name, watched in self._watched.items() if name in names}
