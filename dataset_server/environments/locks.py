"""Lock files: requirements pinned by ``==``, each with the sha256 of every file it may come as; no addresses."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.markers import InvalidMarker, Marker
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from ..errors import EnvironmentFailedError

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)(\[[\w\s,.-]*\])?\s*==\s*(?P<version>[^\s;\\*]+)\s*(;(?P<marker>[^\\]*?))?"
    r"(\s--hash=\w+:[0-9a-f]+)*"
)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def entries(text: str) -> list[str]:
    """The requirements of a lock, one line each: continued lines joined, comments left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def name_of(entry: str) -> str:
    """The normalised name of the package an entry is about; empty if it is about none."""
    match = re.match(r"[A-Za-z0-9][\w.-]*", entry)
    return canonicalize_name(match[0]) if match else ""


def unhashed(lock: Iterable[str]) -> list[str]:
    """The entries without a sha256."""
    return [entry for entry in lock if not _HASH.search(entry)]


def refuse_addresses(lock: Iterable[str]) -> None:
    """Raise `EnvironmentFailedError` for what is more than a pin: an address, a range, an option for the installer.

    Where packages come from is the server's configuration, never the handler's.
    """
    for entry in lock:
        if not _is_a_pin(entry):
            raise EnvironmentFailedError(
                f"the handler's requirements hold '{entry[:200]}'; only NAME==VERSION from the server's index can be "
                "locked: have that package published there"
            )


def _is_a_pin(entry: str) -> bool:
    match = _PINNED.fullmatch(entry)
    if match is None:
        return False
    try:
        if match["marker"] is not None:  # an option behind it would be taken for a part of it
            Marker(match["marker"])
    except InvalidMarker:
        return False
    return True


def hash_from_folders(entry: str, folders: Iterable[Path]) -> str:
    """Complete an entry by the sha256 of its files in local folders (``UV_FIND_LINKS``), for which uv gives none.

    Raises `EnvironmentFailedError` if there is no such file.
    """
    match = _PINNED.fullmatch(entry)
    assert match is not None
    wanted = (canonicalize_name(match["name"]), Version(match["version"]))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    hashes = [f"--hash=sha256:{hash_of(file)}" for file in files if _release_of(file.name) == wanted]
    if not hashes:
        raise EnvironmentFailedError(
            f"the index gives no hash for {entry}, so it cannot be locked; use an index that does (PEP 503)"
        )
    return " ".join([entry, *hashes])


def hash_of(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def local_wheel(wheel: Path) -> str:
    """The entry for a wheel that we have built ourselves, for an installation only: it holds an address."""
    name = parse_wheel_filename(wheel.name)[0]
    return f"{name} @ {wheel.as_uri()} --hash=sha256:{hash_of(wheel)}"


def _release_of(file: str) -> tuple[str, Version] | None:
    try:
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[:2]
        return parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
