"""Which raw sample an example was made of: from the dataset's ``lineage.jsonl``, a line per sample.

::

    {"shard": file, "first": number of its first example in the shard, "examples": int, "key": str,
     "files": {path below the raw root: sha256, …}}
"""

import json
from dataclasses import dataclass

from dataset_client import Dataset


@dataclass(frozen=True)
class Origin:
    """The sample's ``key``, and the raw ``files`` it was read from; None and () where that is not known."""

    key: str | None = None
    files: tuple[str, ...] = ()


def origins(dataset: Dataset, split: str) -> list[Origin]:
    """The origin of each example of a split, in order. Datasets without lineage have unknown origins."""
    found = [Origin()] * dataset.splits[split]
    starts, start = {}, 0
    for shard in dataset.manifest["shards"]:
        if shard["split"] == split:
            starts[shard["file"]] = start
            start += shard["examples"]
    try:
        lines = (dataset.path / "lineage.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        item = json.loads(line)
        if (offset := starts.get(item["shard"])) is None:
            continue
        origin = Origin(str(item["key"]), tuple(item["files"]))
        first = offset + int(item["first"])
        for number in range(first, min(first + int(item["examples"]), len(found))):
            found[number] = origin
    return found
