"""What an environment's folder holds, and whether that is still what was put there.

::

    <key>/                the environment; the key is the hash of all that makes it what it is
      bin/python lib/ …   as `uv venv` and `uv pip install` made it
      requirements.lock   what the index delivered: pinned, hashed, without addresses
      sealed.json         number of files and a digest over their names, sizes and times of change
      last-used           its time of change says when
"""

import base64
import binascii
import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LOCK_FILE: Final = "requirements.lock"
SEAL_FILE: Final = "sealed.json"
USED_FILE: Final = "last-used"

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Environment:
    """A ready environment: its ``key``, and the interpreter in it."""

    key: str
    root: Path
    runtime: str  # what version of dataset-handlers the server lent it; empty if it brought its own

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.root / "bin" / "python"


def installed(root: Path) -> list[Path]:
    """The folders of all environments below ``root``, whether they can be used or not."""
    return sorted(root.glob("[0-9a-f]" * 32))


def seal(root: Path, facts: dict[str, Any]) -> None:
    """Write down what the folder holds, and ``facts`` beside it; from now on it must not change."""
    (root / USED_FILE).touch()
    count, digest = _listing(root)
    (root / SEAL_FILE).write_text(json.dumps({"files": count, "listing_sha256": digest, **facts}, indent=1))


def fault_of(root: Path) -> str | None:
    """Why the environment must not be used; None if it is as it was sealed.

    Cheap: contents are not read, but a file that was removed, added, cut, grown or written to is found.
    """
    if not (root / "bin" / "python").exists():
        return "its interpreter is gone"
    try:
        sealed = json.loads((root / SEAL_FILE).read_bytes())
        count, digest = _listing(root)
        if (sealed["files"], sealed["listing_sha256"]) == (count, digest):
            return None
        return f"its files have changed ({sealed['files']} were put there, {count} are there)"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be checked ({type(error).__name__})"


def damaged_files(root: Path) -> list[str]:
    """Every installed file, read to its end, that is not what its package's ``RECORD`` says; each with the reason."""
    return [f"{name}: {why}" for name, why in _damage(root.resolve())]


def _damage(root: Path) -> Iterator[tuple[str, str]]:
    for record in sorted(root.glob("lib/python*/site-packages/*.dist-info/RECORD")):
        packages = record.parent.parent
        with record.open(newline="") as lines:
            for row in csv.reader(lines):
                name, checksum = (*row, "", "")[:2]
                path = (packages / name).resolve()
                shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else name
                if not path.is_relative_to(root):
                    yield shown, "lies outside of the environment"
                elif checksum and (why := _contradicts(path, checksum)):
                    yield shown, why


def _contradicts(path: Path, checksum: str) -> str | None:
    method, _, expected = checksum.partition("=")
    try:
        wanted = base64.urlsafe_b64decode(expected + "=" * (-len(expected) % 4))
        with path.open("rb") as file:
            digest = hashlib.new(method)
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, binascii.Error):
        return "has a checksum that cannot be understood"
    return None if digest.digest() == wanted else f"differs from its {method}"


def _listing(root: Path) -> tuple[int, str]:
    """Number of files, and a sha256 over their names, sizes and times; links count by where they lead.

    Left out is what Python itself may add (`__pycache__`), and what we do.
    """
    digest, count = hashlib.sha256(), 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        links = [name for name in names if Path(folder, name).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if relative in (SEAL_FILE, USED_FILE):
                continue
            status = path.lstat()
            what = f"-> {path.readlink()}" if path.is_symlink() else f"{status.st_size} {status.st_mtime_ns}"
            digest.update(f"{relative}\0{what}\n".encode(errors="surrogateescape"))
            count += 1
    return count, digest.hexdigest()
