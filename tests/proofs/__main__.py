"""Heavy proofs, one command each; the reports are committed.

python -m tests.proofs faults [--points 200] [--only TEXT] [--jobs 2] [--report FILE.md]
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.proofs import faults, kills
from tests.proofs.case import run_cases, write_report


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["faults"])
    parser.add_argument("--points", type=int, default=200, help="kills of the server (200)")
    parser.add_argument("--cuts", type=int, default=40, help="cases in which the network is cut (40)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose group or name has this in it")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (2)")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write the report there")
    options = parser.parse_args()
    cases = [*kills.cases(options.points), *faults.cases(options.cuts)]
    cases = [case for case in cases if options.only in f"{case.group}: {case.name}"]
    scratch = Path(tempfile.mkdtemp(prefix="proof-"))
    outcomes = run_cases(cases, scratch, options.jobs)
    failed = sum(outcome.result == "failed" for outcome in outcomes)
    if options.report:
        write_report("Faults", f"python -m tests.proofs faults --points {options.points}", outcomes, options.report)
    print(
        f"{len(outcomes)} cases, {failed} failed; what they left is in {scratch}"
        if failed
        else f"{len(outcomes)} cases, none failed"
    )
    if not failed:
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
