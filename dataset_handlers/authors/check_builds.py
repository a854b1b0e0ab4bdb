"""Checks that plan and build: again, with other numbers of workers, in parts, after a kill, on damaged raw files."""

import json
import shutil
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_json
from .check_contents import check_contents, faults_of_reason, mentions, read_lineage
from .compare import difference
from .dataset import BuiltDataset, open_dataset
from .raw_files import damaged_copy
from .runs import Run, run_command
from .verdict import TITLES, Verdict, judge, skip

_OFTEN = "draw from `rng.variation(n)` alone: no global generator, clock, process id, hash() or order of a set"
#: Errors that say what is wrong with the raw data, rather than fall over it.
_REFUSALS = ("raw_data_unusable", "empty_selection", "too_many_bad_samples")

#: Paths at least this long are not found in compressed pixels by chance.
_LONG_PATH = 12


@dataclass(frozen=True)
class Bench:
    """What all runs share, and where they work."""

    dataset: str
    raw_root: Path
    config: dict[str, Any]
    by_sample: bool  # a SampleHandler; others know neither samples nor workers
    python: str | None
    folder: Path
    pool: ThreadPoolExecutor

    def work(self, name: str) -> Path:
        """The work folder of a build."""
        return self.folder / name / "work"

    def run(self, command: str, name: str, *, kill_after_shards: int = 0, **more: Any) -> Run:
        """Run ``plan`` or ``build`` in the folder ``name``."""
        request = {"dataset": self.dataset, "config": self.config, "raw_root": str(self.raw_root)}
        request |= {"work_dir": str(self.work(name)), **more}
        folder = self.folder / name
        return run_command(command, request, folder, python=self.python, kill_after_shards=kill_after_shards)

    def copy_plan(self, source: str, name: str) -> None:
        """Give the build ``name`` the plan of another."""
        for part in ("plan", "sealed", "dataset"):
            (self.work(name) / part).mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.work(source) / "plan", self.work(name) / "plan", dirs_exist_ok=True)

    @property
    def machine_paths(self) -> tuple[str, ...]:
        """Paths of this machine that no dataset may hold."""
        return tuple({str(path) for folder in (self.raw_root, self.folder) for path in (folder, folder.resolve())})


def check_plans(bench: Bench) -> Generator[Verdict, None, Run | None]:
    """Plan twice; returns the first run, or None if there is no plan to rely on."""
    again = bench.pool.submit(bench.run, "plan", "again")
    first, second = bench.run("plan", "first"), again.result()
    if first.code or first.garbage:
        yield judge("plan", [first.fault] if first.code else _garbage(first))
        yield from skip(("plan-again",), "there is no plan")
        return None
    event = first.of("planned")[-1]
    told = f"{event['samples']} samples in {event['shards']} shards, {event['rejected']} rejected"
    yield judge("plan", (), told if bench.by_sample else "a whole-contract handler plans while it builds")
    differing = [_differing_plans(bench, second)] if _plans_differ(bench, second) else []
    yield judge("plan-again", differing)
    return None if differing else first


def _plans_differ(bench: Bench, second: Run) -> bool:
    return bool(second.code or difference(bench.work("first") / "plan", bench.work("again") / "plan"))


def _differing_plans(bench: Bench, second: Run) -> str:
    if second.code:
        return f"the second time it fails: {second.fault}"
    keys = [_planned_keys(bench.work(name) / "plan") for name in ("first", "again")]
    if only := sorted(keys[0] ^ keys[1]):
        return (
            f"the keys of samples differ, '{only[0]}' is in one plan only; make keys of the files' names, "
            "not of hash(), object ids or counters"
        )
    where = difference(bench.work("first") / "plan", bench.work("again") / "plan")
    return f"{where}; samples() may depend on nothing but raw data and config, in whatever order it lists them"


def _planned_keys(plan: Path) -> set[str]:
    return {key for path in plan.glob("shard-*.json") for key, _ in read_json(path)["samples"]}


def check_builds(bench: Bench, planned: Run) -> Iterator[Verdict]:
    """Build in every way and compare; then look at what is in the dataset."""
    for name in ("base", "two", "four", "parts"):
        bench.copy_plan("first", name)
    base = bench.run("build", "base", workers=1)
    yield judge("build", [base.fault] if base.code else _garbage(base))
    if base.code:
        names = list(TITLES)
        yield from skip(names[names.index("workers") : -1], "there is no dataset")
        return
    others = {"two": 2, "four": 4}
    futures = {name: bench.pool.submit(bench.run, "build", name, workers=count) for name, count in others.items()}
    resumed, how = (_in_parts if bench.by_sample else _twice)(bench, planned)
    runs = {name: future.result() for name, future in futures.items()}
    differing = list(_differing_builds(bench, runs))
    twice = "a whole-contract handler has one process; it was built three times"
    yield judge("workers", differing, "" if bench.by_sample else twice)
    if differing:
        yield from skip(("resume",), "builds differ without being resumed")
    else:
        yield judge("resume", list(_differing_resumption(bench, resumed)), how)
    dataset = open_dataset(bench.work("base"))
    yield from check_contents(dataset, bench.raw_root)
    yield from _check_damage(bench, dataset)
    yield judge("paths", list(_named_paths(bench, dataset)))


def _garbage(run: Run) -> list[str]:
    return [f"a line of its output is no event: {line!r}" for line in run.garbage]


def _differing_builds(bench: Bench, runs: Mapping[str, Run]) -> Iterator[str]:
    for name, run in runs.items():
        ways = f"with 1 and {name} workers" if bench.by_sample else "built twice"
        if run.code:
            yield f"with {name} workers it fails: {run.fault}"
        elif where := difference(bench.work("base") / "dataset", bench.work(name) / "dataset"):
            yield f"{ways}, {where}; {_OFTEN}"


def _in_parts(bench: Bench, planned: Run) -> tuple[Run, str]:
    """Build, get killed once a shard is sealed, lose half of the shards, and build on; returns the last run."""
    shards = planned.of("planned")[-1]["shards"]
    bench.run("build", "parts", workers=1, kill_after_shards=1)
    sealed = sorted((bench.work("parts") / "sealed").glob("*.json"))
    for record in sealed[max(1, shards // 2) :]:  # the kill may come late
        record.unlink()
    kept = min(len(sealed), max(1, shards // 2))
    return bench.run("build", "parts", workers=2), f"killed, and resumed with {kept} of {shards} shards"


def _twice(bench: Bench, _planned: Run) -> tuple[Run, str]:
    """What a whole-contract handler does after a crash: everything again, in the same folder."""
    bench.run("build", "parts", kill_after_shards=1)
    return bench.run("build", "parts"), "a whole-contract handler starts over"


def _differing_resumption(bench: Bench, resumed: Run) -> Iterator[str]:
    if resumed.code:
        yield f"it cannot be resumed: {resumed.fault}"
    elif where := difference(bench.work("base") / "dataset", bench.work("parts") / "dataset"):
        yield f"{where}; a build may not see that there was an earlier one: keep no state in files or the class"


def _check_damage(bench: Bench, dataset: BuiltDataset) -> Iterator[Verdict]:
    """Plan and build twice on a raw root where some samples' files are missing or damaged."""
    reasons = [item["reason"] for item in dataset.manifest["quarantine"]]
    lineage = read_lineage(dataset)
    plan = read_json(bench.work("base") / "plan" / "plan.json")
    raw = bench.folder / "damaged-raw"
    damage = damaged_copy(bench.raw_root, raw, lineage, (path for path, _ in plan["raw_files"]))
    if not damage:
        why = "no two samples have raw files of their own that the lineage names"
        yield from skip(("keys", "bad-files"), why)
        yield judge("reasons", _faults_of_reasons(bench, reasons), f"{len(reasons)} reasons")
        return
    lenient = {**bench.config, "max_quarantined_share": 1.0}
    told: dict[str, Any] = {"config": lenient, "raw_root": str(raw)}
    run = bench.run("plan", "damaged-first", **told)
    if not run.code:
        for name in ("damaged", "damaged-again"):
            bench.copy_plan("damaged-first", name)
        again = bench.pool.submit(bench.run, "build", "damaged-again", workers=2, **told)
        run, second = bench.run("build", "damaged", workers=1, **told), again.result()
    hows = ", ".join(f"{path} {how}" for path, how in sorted(damage.items()))
    if run.code:
        yield from skip(("keys",), "there is no second dataset to compare with")
        if run.code in _REFUSALS:
            yield Verdict("bad-files", "ok", f"refused: {run.fault}")
            yield judge("reasons", _faults_of_reasons(bench, [*reasons, run.fault]))
        else:
            yield judge("bad-files", [f"{run.fault}; raise BadSampleError where a sample cannot be used ({hows})"])
            yield judge("reasons", _faults_of_reasons(bench, reasons), f"{len(reasons)} reasons")
        return
    made = open_dataset(bench.work("damaged"))
    yield judge("keys", list(_moved_keys(lineage, read_lineage(made))))
    yield Verdict("bad-files", "ok", f"{len(made.manifest['quarantine'])} in quarantine: {hows}")
    reasons += [item["reason"] for item in made.manifest["quarantine"]]
    faults = _faults_of_reasons(bench, reasons)
    if not faults and second.code:
        faults = [f"on damaged files it fails the second time: {second.fault}"]
    if not faults and (made.manifest["quarantine"] != open_dataset(bench.work("damaged-again")).manifest["quarantine"]):
        faults = ["built twice on the same damaged files, the manifest lists other samples or other reasons"]
    yield judge("reasons", faults, f"{len(reasons)} reasons")


def _faults_of_reasons(bench: Bench, reasons: list[str]) -> list[str]:
    return list(dict.fromkeys(fault for reason in reasons for fault in faults_of_reason(reason, bench.machine_paths)))


def _moved_keys(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Keys that stand for wholly other files once some files are gone."""
    files = {item["key"]: item["files"].keys() for item in before}
    for item in after:
        was = files.get(item["key"])
        if was and item["files"] and not was & item["files"].keys():
            one, other = min(was), min(item["files"])
            yield (
                f"'{item['key']}' was {one} and is {other} when files are missing; make keys of names, not of positions"
            )


def _named_paths(bench: Bench, dataset: BuiltDataset) -> Iterator[str]:
    """Where paths of this machine are written down; reasons of quarantine have a check of their own."""
    for name, text in _texts(bench, dataset):
        in_shard = ".tfrecord" in name
        for folder in bench.machine_paths:
            by_chance = in_shard and len(folder) < _LONG_PATH
            if not by_chance and (folder in text if in_shard else mentions(text, folder)):
                yield f"{name} holds '{folder}'; note paths relative to the raw root"
                break


def _texts(bench: Bench, dataset: BuiltDataset) -> Iterator[tuple[str, str]]:
    """Everything that is written, by name, one file at a time."""
    for path in sorted((bench.work("base") / "plan").glob("*.json")):
        stored = read_json(path)
        stored.pop("rejected", None)
        yield f"plan/{path.name}", json.dumps(stored, ensure_ascii=False)
    manifest = {name: value for name, value in dataset.manifest.items() if name != "quarantine"}
    yield "manifest.json", json.dumps(manifest, ensure_ascii=False)
    for name in ("lineage.jsonl", *dataset.shards()):
        # Latin-1 takes any byte; in shards a path may come after any, so that short ones are found by chance there.
        yield name, (dataset.path / name).read_bytes().decode("latin-1")
