"""A real archive of noise, made by a real server, and whether what was fetched of it is right."""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.service.place import VERSION
from dataset_client.answers import Archive
from tests.support import Server

_NAME = "paced"
_EXAMPLE = 100_000


@dataclass(frozen=True)
class Published:
    """An archive, its ``file`` on the server's disk, and the ``request`` for it, as JSON."""

    archive: Archive
    file: Path
    request: str

    def told(self, url: str) -> str:
        """The archive as JSON, where another server at ``url`` has the file."""
        return json.dumps(asdict(self.archive) | {"url": f"{url}/{self.file.name}"})

    def check(self, folder: Path) -> None:
        """See that a folder holds exactly what is in the archive; `SystemExit` if not."""
        with zipfile.ZipFile(self.file) as opened:
            names = sorted(opened.namelist())
            if names != sorted(path.name for path in folder.iterdir()):
                raise SystemExit(f"{folder} has other files than the archive")
            for name in names:
                with opened.open(name) as published, (folder / name).open("rb") as fetched:
                    if _sha256(published) != _sha256(fetched):
                        raise SystemExit(f"{name} is not what is in the archive")


def _sha256(file) -> bytes:
    return hashlib.file_digest(file, "sha256").digest()


def publish(server: Server, megabytes: int) -> Published:
    """Have a server make an archive of about this size, of examples of 100 kB."""
    config = {"count": megabytes * 1_000_000 // _EXAMPLE, "bytes_each": _EXAMPLE}
    made = server.make(_NAME, config, VERSION)
    if made["kind"] != "ready":
        raise SystemExit(f"no archive: {made}")
    archive = Archive(made["dataset_id"], **made["archive"])
    (file,) = (server.data_dir / "archives").glob(f"{archive.dataset_id.removesuffix('.zip')}.*.zip")
    request = {"dataset_name": _NAME, "handler_version": VERSION, "dataset_config": config}
    return Published(archive, file, json.dumps(request))
