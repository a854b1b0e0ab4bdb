"""Speed of preparation: our build, the limit and the peers on the same photos, interleaved."""

import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import Run, events, measure

PEERS = {  # module: name, and whether it can use several processes
    "webdataset": ("WebDataset ShardWriter", True),
    "mosaicml": ("MosaicML MDSWriter", True),
    "litdata": ("LitData optimize", True),
    "huggingface": ("Hugging Face map", True),
    "tfds": ("TFDS GeneratorBasedBuilder", False),
    "tfdata": ("tf.data + TFRecordWriter", True),
}


@dataclass(frozen=True)
class Contender:
    """Someone who does the work: what is done before the clock, the command, and the command that checks."""

    name: str
    kind: str  # "ours", "limit", "usual" or "tight"
    processes: int
    command: list[str]
    check: list[str]
    before: Callable[[], Run | None] = lambda: None


def contenders(photos: Path, out: Path, peers: str | None, processes: tuple[int, ...]) -> list[Contender]:
    """Everybody; ``out`` is the folder that each writes to, and that is removed after its run."""
    samples = str(photos / "samples.jsonl")
    python = [sys.executable, "-m"]
    listed = []
    for count in processes:
        command = [*python, "benchmarks.ours", str(out / "request.json")]
        check = [*python, "benchmarks.ours", str(out), "--check"]

        def plan(count: int = count) -> Run:
            return measure([*ours.COMMAND, "plan", str(ours.write_request(photos / "raw", out, count))])

        listed.append(Contender("ours", "ours", count, command, check, plan))
        for decode in ("whole", "region"):
            command = [*python, "benchmarks.limit", samples, str(out)]
            run = [*command, "--processes", str(count), "--decode", decode]
            listed.append(Contender(f"the limit, {decode} decode", "limit", count, run, [*command, "--check"]))
    for module, (name, several) in PEERS.items() if peers else ():
        command = [peers, "-W", "ignore", "-m", f"benchmarks.peers.{module}", samples, str(out)]
        count = max(processes) if several else 1
        for flavour in ("usual", "tight"):
            run = [*command, "--processes", str(count), "--flavour", flavour]
            listed.append(Contender(name, flavour, count, run, [*command, "--check"]))
    return listed


def _once(contender: Contender, out: Path, count: int) -> dict[str, float]:
    """One run, its output checked: raw numbers."""
    temporary = out.parent / "temporary"
    for folder in (out, temporary):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    places = dict.fromkeys(("TMPDIR", "HF_HOME", "XDG_CACHE_HOME"), str(temporary))
    before = contender.before()
    run = measure(contender.command, **places)
    checked = measure(contender.check, **places)
    examples = next(events(checked.output, "checked"))["examples"]
    if examples != count:
        raise SystemExit(f"{contender.name} wrote {examples} of {count} examples")
    shutil.rmtree(out)
    numbers = {name: value for name, value in asdict(run).items() if name != "output"}
    return numbers | ({"plan_seconds": before.seconds, "plan_cpu": before.cpu} if before else {})


def run(photos: Path, count: int, scratch: Path, peers: str | None, processes: tuple[int, ...], rounds: int) -> list:
    """Rows of raw numbers and their medians, one for each contender."""
    out = scratch / "out"
    everybody = contenders(photos, out, peers, processes)
    runs: list[list[dict[str, float]]] = [[] for _ in everybody]
    for number in range(rounds):
        for contender, seen in zip(everybody, runs, strict=True):
            seen.append(_once(contender, out, count))
            rate = f"{count / seen[-1]['seconds']:.0f} photos/s, {seen[-1]['cpu'] / count * 1000:.2f} ms of CPU"
            print(
                f"round {number + 1}: {contender.name}, {contender.kind}, {contender.processes}: {rate}",
                file=sys.stderr,
            )
    return [
        {
            "name": contender.name,
            "kind": contender.kind,
            "processes": contender.processes,
            "photos": count,
            "photos_per_second": statistics.median(count / item["seconds"] for item in seen),
            "cpu_ms": statistics.median(item["cpu"] / count * 1000 for item in seen),
            "start_seconds": statistics.median(item["whole_seconds"] - item["seconds"] for item in seen),
            "tree_mb": statistics.median(item["tree_mb"] for item in seen),
            "runs": seen,
        }
        for contender, seen in zip(everybody, runs, strict=True)
    ]


def _row(row: dict) -> str:
    rates = sorted(row["photos"] / item["seconds"] for item in row["runs"])
    return (
        f"| {row['name']} | {row['processes']} | {row['photos_per_second']:.0f} | {rates[0]:.0f}–{rates[-1]:.0f} "
        f"| {row['cpu_ms']:.2f} | {row['tree_mb']:.0f} | {row['start_seconds']:.1f} |"
    )


def report(rows: list[dict]) -> list[str]:
    """The table and the ratios that are promised, in Markdown."""
    head = ["| | processes | photos/s | lowest–highest | CPU ms per photo | peak MB, all processes | imports, s |"]
    head.append("|---|---|---|---|---|---|---|")
    lines = ["## Ours and the limit", "", *head]
    lines += [_row(row) for row in rows if row["kind"] in ("ours", "limit")]
    for flavour, title in (
        ("usual", "The peers as their documentation advises"),
        ("tight", "The peers around the limit's sample function (whole photos)"),
    ):
        if chosen := [row for row in rows if row["kind"] == flavour]:
            lines += ["", f"## {title}", "", *head, *map(_row, chosen)]
    lines += ["", "## Ratios", "", "| | photos/s | CPU ms per photo |", "|---|---|---|"]
    mine = {row["processes"]: row for row in rows if row["kind"] == "ours"}
    for row in rows:
        if row["kind"] == "limit":
            our = mine[row["processes"]]
            lines.append(
                f"| ours / {row['name']}, processes: {row['processes']} "
                f"| {our['photos_per_second'] / row['photos_per_second']:.2f} | {row['cpu_ms'] / our['cpu_ms']:.2f} |"
            )
    our = mine[max(mine)]
    for flavour in ("usual", "tight"):
        if chosen := [row for row in rows if row["kind"] == flavour]:
            best = min(chosen, key=lambda row: row["cpu_ms"])
            rate = max(row["photos_per_second"] for row in chosen)
            lines.append(
                f"| ours / best peer, {flavour} ({best['name']}) | {our['photos_per_second'] / rate:.2f} "
                f"| {best['cpu_ms'] / our['cpu_ms']:.2f} |"
            )
    planning = statistics.median(run["plan_cpu"] for run in our["runs"]) / our["photos"] * 1000
    told = (
        "Ratios above 1 are in our favour: photos/s of ours through theirs, CPU time of theirs through ours; the best "
        "peer's photos/s may be another's than its CPU time. Imports come before the clock. So does our plan, which "
        f"lists and hashes the raw data: {planning:.2f} ms of CPU per photo, its start included; "
        "peers are handed their list."
    )
    return [*lines, "", told]
