"""What several modules here need: the commands as processes, builds in this process, shards read back."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataset_handlers.commands import check_request, plan
from dataset_handlers.errors import HandlerError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.external import plan_external
from dataset_handlers.shards import WorkFolder
from dataset_handlers.tfrecord import read_records
from tests.handlers import third_party

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Outcome:
    """What a command said."""

    status: int
    events: list
    log: str

    @property
    def last(self):
        return self.events[-1]

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]


def write_request(path, **request):
    path.parent.mkdir(parents=True, exist_ok=True)
    request = {
        "handler_api": 1,
        **{key: str(value) if isinstance(value, Path) else value for key, value in request.items()},
    }
    path.write_text(json.dumps(request))
    return path


def command_line(name, file, python=None):
    return [str(python or sys.executable), "-I", "-m", "dataset_handlers", name, str(file)]


def run_command(name, file, python=None, environment=None, timeout=50):
    """Run a command as a server does; every line of its output is an event, or this raises."""
    done = subprocess.run(
        command_line(name, file, python),
        capture_output=True,
        text=True,
        cwd=Path(file).parent,
        env={**os.environ, **(environment or {})},
        timeout=timeout,
    )
    return Outcome(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def plan_and_build(folder, python=None, environment=None, *, plan_here=True, **request):
    """Both commands; the outcome of the first that fails, or of the build.

    Planning is done in this process unless told otherwise: starting another takes half a second.
    """
    file = write_request(folder / "request.json", work_dir=folder, **request)
    planned = plan_in_process(file) if plan_here else run_command("plan", file, python, environment)
    return planned if planned.status else run_command("build", file, python, environment)


def plan_in_process(file):
    """The outcome of ``plan`` for one of our handlers, or one of `third_party`'s."""
    events = []
    try:
        request = check_request(json.loads(file.read_bytes()))
        name = request.get("handler") or request["dataset"]
        if name in ("coco", "duts", "camvid", "cutouts", "mattes", "composite", "logos"):
            plan(request, events.append)
        elif name == "whole":
            work = WorkFolder(Path(request["work_dir"]))
            work.create()
            plan_external("whole", third_party.Whole, request["config"], work)
        else:
            work = WorkFolder(Path(request["work_dir"]))
            work.create()
            handler = getattr(third_party, name.capitalize())(request["config"], request["raw_root"])
            handler.plan(request["dataset"], work)
    except HandlerError as error:
        return Outcome(1, [*events, {"event": "error", **error.to_json()}], "")
    return Outcome(0, events, "")


def contents(folder):
    """Every file of a dataset, by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / "dataset").iterdir())}


def make(handler_class, config, raw_root, folder):
    """Plan and make all shards in this process; returns the plan and the sealed shards."""
    handler = handler_class(config, str(raw_root))
    work = WorkFolder(Path(folder))
    work.create()
    plan = handler.plan("made", work)
    return plan, [handler.make_shard(work, shard, lambda _usable: None) for shard in plan.shards]


def examples_of(folder, sealed):
    """All examples of shards made by `make`, by field; pictures decoded."""
    found = []
    for shard in sealed:
        for record in read_records(Path(folder) / "dataset" / shard.file):
            found.append({name: values[0] for name, values in decode_example(record).items()})
            for name in ("image", "mask"):
                if name in found[-1]:
                    found[-1][name] = decode(found[-1][name])
    return found


def decode(data):
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture if picture.ndim == 2 else picture[..., ::-1]


def quarantined(sealed):
    return {key: reason for shard in sealed for key, reason in shard.quarantine}
