"""What lies below a raw root, before and after; and a second raw root with some of its files damaged."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

Snapshot = dict[str, tuple[int, int, bool]]

#: Bytes that are no picture, no JSON and no text.
_GARBAGE = bytes(range(256)) * 4


def snapshot(root: Path) -> Snapshot:
    """Size, time of the last change (ns) and kind of everything below ``root``, by relative path."""
    found: Snapshot = {}
    entered: set[tuple[int, int]] = set()
    waiting = [(root, ".")]
    while waiting:
        folder, relative = waiting.pop()
        about = folder.stat()
        if (about.st_dev, about.st_ino) in entered:  # a link that leads back
            continue
        entered.add((about.st_dev, about.st_ino))
        found[relative] = (0, about.st_mtime_ns, True)
        for entry in os.scandir(folder):
            below = entry.name if relative == "." else f"{relative}/{entry.name}"
            if entry.is_dir():
                waiting.append((Path(entry.path), below))
            else:
                status = entry.stat(follow_symlinks=entry.is_file())  # a link to nowhere is looked at itself
                found[below] = (status.st_size, status.st_mtime_ns, False)
    return found


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """What was written, in words, files first."""
    told = [f"'{path}' was created" for path in sorted(after.keys() - before.keys())]
    told += [f"'{path}' was removed" for path in sorted(before.keys() - after.keys())]
    changed = [path for path in sorted(before.keys() & after.keys()) if before[path] != after[path]]
    told += [f"'{path}' was changed" for path in changed if not after[path][2]]
    if not told:  # a folder changes with its files; alone, something came and went
        told += [f"something came and went in the folder '{path}'" for path in changed]
    return told


def damaged_copy(
    raw_root: Path, target: Path, lineage: Sequence[Mapping[str, Any]], besides: Iterable[str]
) -> dict[str, str]:
    """Make ``target`` a raw root of just the files that a lineage names, some of them damaged; return how, by path.

    ``besides`` are files that planning read. Whole files are links. Only files of one sample alone are damaged: one
    sample's are missing, and of three more samples one file is cut off in its middle, empty, or garbage. Paths that
    lead out of the raw root, which a broken lineage may name, are passed over.
    """
    users = Counter(path for item in lineage for path in item["files"] if _is_inside(path))
    besides = filter(_is_inside, besides)
    own = [sorted(path for path in item["files"] if users[path] == 1) for item in lineage]
    own = sorted(paths for paths in own if paths)
    damage = dict.fromkeys(own[0], "missing") if len(own) > 1 else {}
    for index, (paths, how) in enumerate(zip(own[1:], ("cut off", "empty", "garbage"), strict=False)):
        damage[paths[index % len(paths)]] = how
    for path in {*users, *besides}:
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path not in damage:
            file.symlink_to(raw_root / path)
        elif damage[path] == "cut off":
            data = (raw_root / path).read_bytes()
            file.write_bytes(data[: len(data) // 2])
        elif damage[path] != "missing":
            file.write_bytes(_GARBAGE if damage[path] == "garbage" else b"")
    return damage


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts
