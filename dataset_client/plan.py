"""What fetching an archive takes: the decision alone, from what is offered and what is here."""

from dataset_client.answers import Archive
from dataset_client.errors import CacheError


def plan_download(offered: Archive, *, partial_bytes: int, free_bytes: int) -> int:
    """The byte to resume from, 0 for the start; raises `CacheError` if the disk is too small.

    ``partial_bytes``: how much of this very archive an interrupted download has left; more than the archive has is
    worth nothing. The disk must hold the rest of the archive and, for a moment beside it, the unpacked files, which
    are as large as the archive because it is stored, not compressed.
    """
    resume_from = partial_bytes if partial_bytes <= offered.bytes else 0
    needed = 2 * offered.bytes - resume_from
    if needed > free_bytes:
        raise CacheError(
            f"the cache has {free_bytes / 1e9:.2f} GB free; downloading and unpacking {offered.dataset_id} takes "
            f"{needed / 1e9:.2f} GB",
            code="disk_full",
        )
    return resume_from
