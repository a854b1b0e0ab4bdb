"""Heavy proofs, one command each; the reports are committed.

python -m tests.proofs faults [--points 200] [--cuts 40] [--only TEXT] [--jobs 2] [--report FILE.md]
python -m tests.proofs client [--points 100] [--only TEXT] [--jobs 2] [--report FILE.md]
python -m tests.proofs intrusion [--cases 10000] [--report FILE.md]
"""

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from tests.proofs import client, faults, intrusion, kills
from tests.proofs.case import Case, Outcome, run_cases, write_report
from tests.proofs.scene import remove_shared


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["faults", "client", "intrusion"])
    parser.add_argument("--points", type=int, default=200, help="kills of the server or client (200)")
    parser.add_argument("--cuts", type=int, default=40, help="faults: cases in which the network is cut (40)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults: cases whose group or name has this in it")
    parser.add_argument("--jobs", type=int, default=2, help="faults: cases at a time (2)")
    parser.add_argument("--cases", type=int, default=10_000, help="intrusion: cases of Schemathesis (10000)")
    parser.add_argument("--report", type=Path, metavar="FILE.md", help="write the report there")
    options = parser.parse_args()
    if options.report and options.only:
        parser.error("a report is of all cases: --report and --only do not go together")
    if options.what == "faults":
        title = "Faults"
        outcomes = run_faults([*kills.cases(options.points), *faults.cases(options.cuts)], options)
    elif options.what == "client":
        title = "A client that is killed"
        outcomes = run_faults([*client.cases(options.points)], options)
    else:
        title, outcomes = "Attempts to get in or out", intrusion.run_all(options.cases)
    if options.report:
        write_report(title, f"python -m tests.proofs {shlex.join(sys.argv[1:])}", outcomes, options.report)
    failed = sum(outcome.result == "failed" for outcome in outcomes)
    print(f"{sum(outcome.cases for outcome in outcomes)} cases, {failed or 'none'} failed")
    return 1 if failed or not outcomes else 0


def run_faults(cases: list[Case], options: argparse.Namespace) -> list[Outcome]:
    """The cases that are asked for; their folders stay if one of them failed."""
    cases = [case for case in cases if options.only in f"{case.group}: {case.name}"]
    scratch = Path(tempfile.mkdtemp(prefix="proof-"))
    try:
        outcomes = run_cases(cases, scratch, options.jobs)
    finally:
        remove_shared()
    if any(outcome.result == "failed" for outcome in outcomes):
        print(f"what they left is in {scratch}")
    else:
        shutil.rmtree(scratch, ignore_errors=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
