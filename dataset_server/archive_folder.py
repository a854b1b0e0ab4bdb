"""The folder of archives: the names of its files, and what does not belong there any more.

::

    archives/<dataset id without .zip>.r<revision>.zip            an archive
    archives/<dataset id without .zip>.r<revision>.sources.jsonl  the raw files it was made of (`staleness`)
    archives/<dataset id without .zip>.r<revision>.rotten         one that scrubbing has put aside, until room is needed
    archives/.….partial                                           one that is being written
"""

import contextlib
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_client.protocol import ID_PATTERN

logger = logging.getLogger(__name__)

#: Seconds for which what has rotted is kept for somebody to look at.
KEEP_ROTTEN = 30 * 24 * 3600.0

_FILE = re.compile(r"(?P<stem>.+)\.r(?P<revision>\d{1,9})\.(zip|sources\.jsonl)")


@dataclass(frozen=True)
class ArchiveFolder:
    """The folder at ``root``."""

    root: Path

    def archive(self, dataset_id: str, revision: int) -> Path:
        """Where an archive is, or will be."""
        return self.root / f"{dataset_id.removesuffix('.zip')}.r{revision}.zip"

    def sources(self, dataset_id: str, revision: int) -> Path:
        """Where the list of its raw files is."""
        return self.archive(dataset_id, revision).with_suffix(".sources.jsonl")

    def remove(self, dataset_id: str, revision: int) -> None:
        """Remove an archive; readers that have it open read on."""
        self.archive(dataset_id, revision).unlink(missing_ok=True)
        self.sources(dataset_id, revision).unlink(missing_ok=True)

    def put_aside(self, dataset_id: str, revision: int) -> int:
        """Take a rotten archive out of the way; its bytes."""
        path = self.archive(dataset_id, revision)
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.replace(path.with_suffix(".rotten"))
        self.sources(dataset_id, revision).unlink(missing_ok=True)
        return size

    def remove_rotten(self) -> None:
        """Remove all that were put aside."""
        for path in list(self.root.glob("*.rotten")):
            path.unlink(missing_ok=True)

    def tidy(self, expected: Mapping[str, set[int]], *, older_than: float = -math.inf) -> int:
        """Bring the folder in line with the database, which expects these revisions by dataset id.

        What it has never heard of stays: it may be another database's. While the server runs, only what was not touched
        for ``older_than`` seconds goes: files come before the database knows of them. Returns the bytes of rotten
        archives that are kept.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        unknown = rotten = 0
        for path in list(self.root.iterdir()):
            named = _FILE.fullmatch(path.name)
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            age = time.time() - status.st_ctime
            if path.suffix == ".rotten":
                if age > KEEP_ROTTEN:
                    path.unlink(missing_ok=True)
                else:
                    rotten += status.st_size
            elif age < older_than:
                continue
            elif path.name.endswith(".partial"):
                path.unlink(missing_ok=True)
            elif ID_PATTERN.fullmatch(path.name) and 1 in expected.get(path.name, ()):
                path.rename(self.archive(path.name, 1))  # as servers without revisions called it
            elif named and f"{named['stem']}.zip" in expected:
                if int(named["revision"]) not in expected[f"{named['stem']}.zip"]:
                    path.unlink(missing_ok=True)
            else:
                unknown += 1
        if unknown:
            logger.warning("%d files in %s belong to no dataset that the database knows", unknown, self.root)
        return rotten
