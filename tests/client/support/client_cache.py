"""Datasets in a cache that hold nothing but bytes."""

import json
import os

from dataset_client.cache import Revision


def put(cache, name, size, used):
    """A dataset of ``size`` bytes that was installed and used at a time."""
    revision = Revision(f"{name}_v1_{'0' * 32}.zip", f"{size:016x}{0:048}", size)
    path = cache.datasets / revision.stem
    path.mkdir()
    (path / "data").write_bytes(bytes(size))
    fields = {"format": 2, "dataset_id": revision.dataset_id, "sha256": revision.sha256, "bytes": size, "members": []}
    for file in (path.with_name(f"{path.name}.json"), cache.root / "uses" / path.name / "last"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(fields))
        os.utime(file, (used, used))
    return path
