"""A handler package that speaks the protocol and lies in it, as its config says."""

import json
import sys
from pathlib import Path

command, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
lie = request.get("config", {}).get("lie")
shard = {
    "event": "shard",
    "number": 0,
    "file": "liar-train.tfrecord-00000-of-00001",
    "split": "train",
    "examples": 1,
    "bytes": 16,
    "sha256": "0" * 64,
}


def say(**event: object) -> None:
    """Print one event."""
    print(json.dumps(event), flush=True)


if command == "describe":
    say(event="described", handler_api=1, options={}, effective_config={"lie": lie})
elif command == "plan":
    (Path(request["work_dir"]) / "plan").mkdir(parents=True)
    say(event="planned")
elif lie == "path":
    say(**{**shard, "file": "../../../server.db"})
elif lie == "absolute":
    say(event="finished", files=["/etc/passwd"])
elif lie == "no fields":
    say(event="shard")
elif lie == "wrong types":
    say(event="progress", done="many", total=None)
elif lie == "not announced":
    say(event="finished", files=[shard["file"]])
elif lie == "no shard":
    say(**shard)
elif lie == "size":
    folder = Path(request["work_dir"]) / "dataset"
    folder.mkdir()
    (folder / shard["file"]).write_bytes(bytes(15))
    say(**shard)
elif lie == "no number":
    print('{"event": "progress", "done": NaN, "total": 1}')
elif lie in ("manifest", "no manifest"):
    folder = Path(request["work_dir"]) / "dataset"
    folder.mkdir()
    files = ("dataset_info.json", "features.json", "lineage.jsonl", "manifest.json")
    for name in files if lie == "manifest" else files[:-1]:
        (folder / name).write_text("[]")
    say(event="finished", files=files)
elif lie == "garbage":
    print("All done! \x00\xff")
elif lie == "huge line":
    print("x" * 10_000_000)
elif lie == "wrong answer":
    say(event="planned")
