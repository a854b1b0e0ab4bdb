"""The benchmark of the readers runs from start to end, and says truly what was reached."""

import json
import subprocess
import sys

import pytest

from benchmarks.reading import report
from tests.handlers.support import REPOSITORY, plan_and_build


def test_the_benchmark_runs(raw_root, tmp_path):
    config = {"input_attributes": ["image"], "splits": {"train": 1.0}, "image_size": [60, 80]}
    assert plan_and_build(tmp_path / "made", dataset="duts", config=config, raw_root=raw_root).status == 0
    command = [sys.executable, "-m", "benchmarks.reading", "--dataset", str(tmp_path / "made" / "dataset"), "--quick"]
    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "reading.json").read_bytes())
    assert [(row["name"], row["form"], len(row["runs"])) for row in found["results"]] == [
        ("ours", "numpy", 1),
        ("ours", "tf", 1),
    ]
    assert all(row["rate"] > 0 for row in found["results"])
    assert (tmp_path / "reading.md").read_text() == done.stdout
    first = f"; the first time, all in a row, {found['by_number']['first_pass_ms']:.3f} ms |"
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("| one example by its number: < 1 ms plus"))
    assert first in line


def row(name, rates, *, form="numpy", flavour="usual"):
    runs = [{"rate": rate, "cpu_ms": 1000 / rate} for rate in rates]
    return {"name": name, "form": form, "flavour": flavour, "cores": 1, "rate": sorted(rates)[1], "runs": runs}


@pytest.mark.parametrize(("rates", "reached"), [([100, 200, 300], "yes"), ([101, 201, 250], "no")])
def test_an_aim_is_reached_where_the_median_of_the_rounds_ratios_is(rates, reached):
    """Each round is compared with itself: the machine may have been slower in one."""
    rows = [row("ours", [150, 300, 450], flavour="ours"), row("LitData", rates), row("WebDataset", [10, 20, 30])]
    report.ratios(rows)
    (line, _) = report.aims(rows, {"without_decoding_ms": 0.1, "whole_ms": 1.2, "first_pass_ms": 0.2})[2:]
    assert line.endswith(f"LitData {300 / rates[1]:.2f}, WebDataset 15.00 | {reached} |")
