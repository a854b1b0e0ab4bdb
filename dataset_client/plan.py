"""What to do about an archive: the decision alone, from what the server offers and what the cache holds."""

from dataclasses import dataclass

from dataset_client.answers import Archive
from dataset_client.cache import CachedDataset


@dataclass(frozen=True)
class Keep:
    """What is offered is here."""

    dataset: CachedDataset


@dataclass(frozen=True)
class Load:
    """Fetch what is offered, after the first ``resume_from`` bytes, which are here already (0: from the
    start).

    ``disk_bytes`` is what the disk must have free for it: the rest of the archive and, for a moment beside
    it, the unpacked files, which are as large as the archive because it is stored, not compressed.
    """

    resume_from: int
    disk_bytes: int


def decide(offered: Archive, *, cached: CachedDataset | None, partial_bytes: int = 0) -> Keep | Load:
    """Decide about ``offered``.

    ``cached``: a complete dataset in the cache, of whatever revision. ``partial_bytes``: how much of this
    very archive an interrupted download has left; more than the archive has is worth nothing.
    """
    if cached is not None and cached.revision.sha256 == offered.sha256:
        return Keep(cached)
    resume_from = partial_bytes if partial_bytes <= offered.bytes else 0
    return Load(resume_from, disk_bytes=2 * offered.bytes - resume_from)
