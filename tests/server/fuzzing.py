"""Schemathesis over the whole API of a real server: ``python -m tests.server.fuzzing`` makes at least 10,000 cases."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.support import PLUGINS, ROOT, Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
)
TOKEN = "a token of the fuzzing test"
CONFIG = Path(__file__).with_name("schemathesis.toml")
NAME, VERSION = "tones", "1.0"


@dataclass(frozen=True)
class Fuzzed:
    """What came of a run; ``answers`` counts what the server answered, by status."""

    cases: int
    passed: bool
    report: str
    answers: dict[str, int]


def serve(folder: Path, environments: Path, *, token: str | None) -> Server:
    """A server that makes tiny datasets, and refuses when three of them wait."""
    raw = folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    return Server(
        raw,
        folder / "data",
        environments,
        handlers={NAME: str(PLUGINS / NAME)},
        settings={"workers": 1, "queue_limit": 3, "requests_per_minute": 1_000_000},
        environment={"DATASET_SERVER_TOKEN": token} if token else {},
    ).start()


def prepare(server: Server) -> dict:
    """Two datasets, ready: what the requests shall be about."""
    made = [server.make(NAME, {"count": count, "seed": 1}, VERSION) for count in (3, 5)]
    ids = [dataset["dataset_id"] for dataset in made]
    files = [shard["file"] for name in ids for shard in server.get(f"datasets/{name}").json()["shards"]]
    return {"ids": ids, "files": files, "name": NAME, "version": VERSION}


def fuzz(server: Server, known: dict, *, examples: int, phases: str, token: str | None, seed: int) -> Fuzzed:
    """Run Schemathesis against ``server`` with up to ``examples`` cases of each operation."""
    checks = [*CHECKS, "ignored_auth"] if token else CHECKS
    with tempfile.TemporaryDirectory() as folder:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        document = server.get("openapi.json", headers=headers).json()
        if not token:  # then nobody needs to say who he is, which the document cannot know
            del document["security"]
        file = Path(folder) / "openapi.json"
        file.write_text(json.dumps(document))
        config = Path(folder) / "schemathesis.toml"
        config.write_text(
            CONFIG.read_text() + (f"\n[auth.openapi.bearer]\nbearer = {json.dumps(token)}\n" if token else "")
        )
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(file)]
        command += ["--url", server.url, "--checks", ",".join(checks), "--phases", phases]
        command += ["--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure", "--no-color"]
        command += ["--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "SCHEMATHESIS_HOOKS": "tests.server.fuzz_hooks",
            "FUZZ_KNOWN": json.dumps(known),
        }
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    report = run.stdout + run.stderr
    counted = re.search(r"([\d,]+) generated", report)
    cases = int(counted[1].replace(",", "")) if counted else 0
    return Fuzzed(cases, run.returncode == 0 and cases > 0, report, answers_of(server, headers))


def answers_of(server: Server, headers: dict[str, str]) -> dict[str, int]:
    """How many answers of each status the server has given, by its own count."""
    metrics = requests.get(f"{server.url}/metrics", headers=headers, timeout=60).text
    counted = Counter()
    for status, count in re.findall(
        r'^dataset_server_requests_total\{.*status="(\d+)".*\} (\S+)$', metrics, re.MULTILINE
    ):
        counted[status] += int(float(count))
    return dict(sorted(counted.items()))


def fuzz_a_server(
    folder: Path, environments: Path, *, examples: int, phases: str, token: str | None, seed: int
) -> Fuzzed:
    """A run against a server that has datasets; it asks for ``token`` if there is one."""
    server = serve(folder, environments, token=None)
    try:
        known = prepare(server)
        if token:
            assert server.stop() == 0
            server = serve(folder, environments, token=token)
        return fuzz(server, known, examples=examples, phases=phases, token=token, seed=seed)
    finally:
        if server.process.poll() is None:
            assert server.stop() == 0


def fuzz_until(wanted: int, *, examples: int, seed: int) -> Iterator[tuple[str, Fuzzed]]:
    """Runs with one seed after another, each by its name, until there were ``wanted`` cases; tells how they go.

    One that makes no cases is the last.
    """
    cases = 0
    with tempfile.TemporaryDirectory() as root:
        while cases < wanted:
            for name, token in (("without tokens", None), ("with tokens", TOKEN)):
                run = fuzz_a_server(
                    Path(root, f"{name}-{seed}"),
                    Path(root, "environments"),
                    examples=examples,
                    phases="coverage,fuzzing,stateful",
                    token=token,
                    seed=seed,
                )
                told = "passed" if run.passed else "FAILED"
                print(f"seed {seed}, {name}: {run.cases} cases, {told}; answers {run.answers}", flush=True)
                if not run.passed:
                    print(run.report)
                cases += run.cases
                yield f"{name}, seed {seed}", run
                if not run.cases:
                    return
            seed += 1


def main() -> int:
    """Run until there were enough cases; print the count, and what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="cases to make at least (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=150, help="cases of each operation in one run")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    cases, failed = 0, 0
    for _, run in fuzz_until(wanted.cases, examples=wanted.examples, seed=wanted.seed):
        cases, failed = cases + run.cases, failed + (not run.passed)
    print(f"{cases} cases, {failed} runs failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
