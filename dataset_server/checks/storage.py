"""The disks: the data folder, the raw data, and how they are mounted."""

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from .finding import Finding, failed, ok, warning

_GIB = 1 << 30
_NETWORK = re.compile(r"nfs\d?|cifs|smb3?|smbfs|9p|afs|ceph|glusterfs|lustre|fuse\.(?!fuseblk).*|virtiofs")


@dataclass(frozen=True)
class Space:
    """Bytes of a disk."""

    free: int
    total: int


def judge_space(space: Space) -> Finding:
    """Whether there is room to work."""
    shown = f"{space.free / _GIB:.1f} of {space.total / _GIB:.1f} GiB are free"
    remedy = "delete datasets, remove what else is on the disk, or give data_dir a larger one"
    if space.free < _GIB:
        return failed("disk", shown, remedy)
    if space.free < 10 * _GIB or space.free < space.total // 20:
        return warning("disk", shown, remedy)
    return ok("disk", shown)


def data_folder(data_dir: Path, environments: Path) -> list[Finding]:
    """Whether the data folder is ours, takes files as durably as the server needs it, and is on one disk."""
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        who = f"user {os.getuid()}"
        return [
            failed("data folder", f"{existing} cannot be written by {who}", f"chown {existing} to the server's user")
        ]
    found = []
    if existing != data_dir:
        found.append(ok("data folder", f"{data_dir} will be made at the first start"))
    else:
        found.append(_ours(data_dir))
        found.extend(_one_disk(data_dir))
    found.append(_takes_files(existing))
    disk = shutil.disk_usage(existing)
    found.append(judge_space(Space(disk.free, disk.total)))
    for name, path in {"data_dir": data_dir, "environments_dir": environments}.items():
        kind = file_system(path, Path("/proc/self/mountinfo"))
        if _NETWORK.fullmatch(kind):
            found.append(_on_network(name, path, kind))
    return found


def _ours(data_dir: Path) -> Finding:
    owner = data_dir.stat().st_uid
    if owner != os.getuid():
        return warning(
            "data folder",
            f"{data_dir} belongs to user {owner}, this is user {os.getuid()}",
            "run check and serve as the same user; a data folder has one",
        )
    return ok("data folder", f"{data_dir} is ours")


def _takes_files(folder: Path) -> Finding:
    """Write, flush, link and rename, as the server does with everything it keeps."""
    first, second, third = (folder / f".check-{uuid.uuid4().hex}.partial" for _ in range(3))
    try:
        with first.open("wb") as file:
            file.write(b"check")
            file.flush()
            os.fsync(file.fileno())
        os.link(first, second)
        first.rename(third)
    except OSError as error:
        return failed(
            "data folder",
            f"{folder} does not do what the server needs (write, fsync, link, rename): {error.strerror}",
            "use a local file system such as ext4 or XFS",
        )
    finally:
        for path in (first, second, third):
            path.unlink(missing_ok=True)
    return ok("data folder", "files can be written, flushed, linked and renamed")


def _one_disk(data_dir: Path) -> list[Finding]:
    device = data_dir.stat().st_dev
    parted = [
        path for name in ("work", "archives") if (path := data_dir / name).exists() and path.stat().st_dev != device
    ]
    return [
        failed(
            "data folder",
            f"{path} is on another disk than {data_dir}: what is made cannot be renamed to where it belongs",
            "put the whole data folder on one disk; only environments_dir may be elsewhere",
        )
        for path in parted
    ]


def _on_network(name: str, path: Path, kind: str) -> Finding:
    return warning(
        "data folder",
        f"{name} {path} is on a network file system ({kind})",
        "use a local disk: SQLite's locks and fsync are not to be relied on over a network",
    )


def file_system(path: Path, mounts: Path) -> str:
    """The type of the file system a path is on, by a table of mounts as in proc(5); empty where there is no table."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    target, best, kind = path.resolve(), -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), left.split()[4]))
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split()[0]
    return kind


def raw_data(raw_root: Path) -> Finding:
    """Whether there is raw data, and nobody writes to it by accident."""
    try:
        folders = sorted(path.name for path in raw_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        return failed("raw data", f"{raw_root} cannot be read: {error.strerror}", "let the server's user read it")
    if not folders:
        return warning("raw data", f"{raw_root} holds no folders", "put each raw dataset there, in a folder of its own")
    closed = [name for name in folders if not os.access(raw_root / name, os.R_OK | os.X_OK)]
    if closed:
        return failed(
            "raw data", f"{', '.join(closed)} cannot be read", "let the server's user read all of the raw data"
        )
    return ok("raw data", f"{raw_root} holds {', '.join(folders)}")
