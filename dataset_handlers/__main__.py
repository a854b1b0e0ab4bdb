"""``dataset-handlers``: the commands a server runs, and the tools of those who write handlers."""

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .contract import HANDLER_API
from .errors import ConfigRefusedError, HandlerError, RequestError, as_fault
from .registry import installed

Emit = Callable[[dict[str, Any]], None]

_EPILOG = """\
examples:
  dataset-handlers list
  dataset-handlers describe --dataset coco
  dataset-handlers build --dataset coco --config config.json --raw-root RAW --work-dir OUT --workers 2
  dataset-handlers stats OUT
  dataset-handlers preview OUT --count 12 --output sheet.png
  dataset-handlers new flowers
  dataset-handlers check --dataset flowers --raw-root RAW

OUT/dataset is then a folder that tensorflow_datasets.builder_from_directory() opens.
`dataset-handlers COMMAND --help` says more of each. A server gives one REQUEST.json instead of the options of
describe, plan and build, and reads JSON lines; see dataset_handlers/commands.py.
"""
_DESCRIBE = """\
examples:
  dataset-handlers describe --dataset coco                       options, defaults and what they mean
  dataset-handlers describe --dataset coco --config config.json  and what this config means, defaults filled in
"""
_PLAN = """\
A plan decides which samples are in the dataset, and in which split and shard. `build` plans by itself.

example:
  dataset-handlers plan --dataset duts --config config.json --raw-root RAW --work-dir OUT
"""
_BUILD = """\
A build that was interrupted goes on where it was. It notices neither that a handler's code was changed meanwhile nor
that raw files came or changed: give an edited handler, or other raw data, another --work-dir.

examples:
  dataset-handlers build --dataset duts --raw-root RAW --work-dir OUT
  dataset-handlers build --dataset duts --config config.json --raw-root RAW --work-dir OUT --workers 2 --json
"""
_STATS = """\
examples:
  dataset-handlers stats OUT                                     the folder given to build as --work-dir
  dataset-handlers stats "$(dataset-client request duts 0.1.0 config.json)"
"""
_PREVIEW = """\
examples:
  dataset-handlers preview OUT --split train --count 24 --columns 4 --output sheet.png
  dataset-handlers preview --dataset duts --config config.json --raw-root RAW --output sheet.png
"""
_CHECK = """\
Plans and builds a few samples in a temporary folder, as a server would: again, with 1, 2 and 4 workers,
killed and resumed, on damaged files. Says for each part of the contract whether it holds; exit status 1 if one does
not.

examples:
  dataset-handlers check --dataset flowers --raw-root RAW
  dataset-handlers check --dataset flowers --raw-root RAW --config config.json --limit 100 --json
"""
_NEW = """\
example:
  dataset-handlers new flowers
  pip install --editable flowers
  python -m pytest flowers
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser, options = _parse(arguments)
    protocol = options.command in ("describe", "plan", "build")
    if protocol and options.request is None and options.dataset is None:
        parser.error("give a REQUEST.json, or --dataset and what else the command needs")
    folders = options.command == "describe" or not protocol or (options.raw_root and options.work_dir)
    if not folders and options.request is None:
        parser.error(f"{options.command} needs --raw-root and --work-dir")
    if protocol and (options.request is not None or options.json):
        return run_protocol(lambda request, emit: _command(options)(request, emit), lambda: _request(options))
    if options.command == "list":
        for name, entry in installed().items():
            print(f"{name}\t{entry.value}")
        return 0
    return _run_for_a_person(parser, options)


def _parse(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dataset-handlers",
        description="Turn raw data into TFRecord datasets, and write handlers that do.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, epilog: str | None = None) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog, formatter_class=raw
        )

    add("list", "list the handlers that are installed")
    describe = add("describe", "say what a handler makes and which options it has", _DESCRIBE)
    plan = add("plan", "decide what goes into a dataset, and stop there", _PLAN)
    build = add("build", "make a dataset, or go on making it", _BUILD)
    for command in (describe, plan, build):
        command.add_argument("request", nargs="?", type=Path, metavar="REQUEST.json", help="the whole request")
        command.add_argument("--json", action="store_true", help="print events as JSON lines")
    stats = add("stats", "show what a dataset holds", _STATS)
    stats.add_argument("folder", type=Path, metavar="DIR", help="a dataset's folder, or its --work-dir")
    stats.add_argument("--json", action="store_true", help="print the manifest's statistics as JSON")
    preview = add("preview", "draw examples of a dataset as a contact sheet", _PREVIEW)
    preview.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a dataset's folder, or its --work-dir")
    preview.add_argument("--output", type=Path, metavar="FILE.png", required=True, help="the picture to write")
    preview.add_argument("--split", action="append", metavar="NAME", help="only this split; may be repeated")
    preview.add_argument("--count", type=int, default=12, metavar="N", help="examples of each split (default: 12)")
    preview.add_argument("--columns", type=int, metavar="N", help="examples in a row (default: what fits a screen)")
    check = add("check", "hold a handler to its contract on a raw folder", _CHECK)
    check.add_argument("--limit", type=int, default=24, metavar="N", help="samples to look at (default: 24)")
    check.add_argument("--json", action="store_true", help="print all verdicts as one JSON object")
    for command in (describe, plan, build, preview, check):
        required = command is check
        command.add_argument("--dataset", metavar="NAME", required=required, help="a handler that `list` shows")
        command.add_argument("--config", type=Path, metavar="FILE", help="the config, a JSON object (default: {})")
        command.add_argument("--raw-root", metavar="DIR", required=required, help="where the raw folders are")
    for command in (describe, plan, build):
        command.add_argument("--work-dir", metavar="DIR", help="where plan, shards and dataset go")
        command.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    new = add("new", "write the package of a new handler, with a test that passes", _NEW)
    new.add_argument("name", metavar="NAME", help="name of the dataset: lower-case letters, digits and underscores")
    new.add_argument("--directory", type=Path, metavar="DIR", help="where the package goes (default: ./NAME)")
    return parser, parser.parse_args(arguments)


def _command(options: argparse.Namespace) -> Callable[[dict[str, Any], Emit], None]:
    from .commands import COMMANDS

    if options.command in ("plan", "build") and options.request is None:
        from .authors.building import plan, plan_and_build

        return plan if options.command == "plan" else plan_and_build
    return COMMANDS[options.command]


def run_protocol(command: Callable[[dict[str, Any], Emit], None], load: Callable[[], Any]) -> int:
    """Run ``command`` on the request that ``load`` returns, events as JSON lines on standard output."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely: workers are ended too
    with _events() as out:

        def emit(event: dict[str, Any]) -> None:
            try:
                out.write(json.dumps(event, separators=(",", ":")) + "\n")
                out.flush()
            except BrokenPipeError:
                raise KeyboardInterrupt from None  # nobody listens any more

        try:
            from .commands import check_request

            command(check_request(load()), emit)
        except HandlerError as error:
            emit({"event": "error", **error.to_json()})
            return 1
        except KeyboardInterrupt:
            return 130
        except BaseException as error:  # the boundary: whatever a handler raises, also SystemExit, becomes its fault
            traceback.print_exc()
            emit({"event": "error", **as_fault(error).to_json()})
            return 1
    return 0


def _run_for_a_person(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run a command with text on standard output and, where it fails, one sentence on standard error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _events() as out:
        try:
            from .authors.cli import COMMANDS

            return COMMANDS[options.command](options, lambda: _request(options), out)
        except ConfigRefusedError as error:
            faults = "".join(f"\n  {fault['path'] or '/'}: {fault['reason']}" for fault in error.faults)
            message = f"the config is refused; mend it and run this again:{faults}"
        except HandlerError as error:
            message = str(error)
        except BrokenPipeError:
            return 130
        except KeyboardInterrupt:
            print(f"\n{parser.prog}: interrupted", file=sys.stderr)
            return 130
        except BaseException as error:  # the boundary, as above; the author wants to see where it happened
            traceback.print_exc()
            message = f"the handler failed: {type(error).__name__}: {error}"
    print(f"{parser.prog}: {message}", file=sys.stderr)
    return 1


def read_request(file: Path) -> Any:
    """The JSON in ``file``; raises `RequestError` if there is none."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{file} cannot be read: {error}") from error


def _request(options: argparse.Namespace) -> Any:
    if getattr(options, "request", None) is not None:
        return read_request(options.request)
    config = read_request(options.config) if options.config else {}
    request = {"handler_api": HANDLER_API, "dataset": options.dataset, "config": config}
    for name in ("raw_root", "work_dir", "workers"):
        if getattr(options, name, None) is not None:
            request[name] = getattr(options, name)
    return request


@contextlib.contextmanager
def _events() -> Iterator[IO[str]]:
    """Standard output for events alone: what a handler prints goes to standard error."""
    sys.stdout.flush()
    private = os.dup(1)
    os.dup2(2, 1)
    out = os.fdopen(private, "w", encoding="utf-8")
    try:
        yield out
    finally:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more, and that has been noticed
            out.close()
        os.dup2(2, 1)


if __name__ == "__main__":
    sys.exit(main())
