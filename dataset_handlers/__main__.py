"""``dataset-handlers``: the commands a server runs, and the same for an author on a laptop."""

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .contract import HANDLER_API
from .errors import HandlerError, RequestError
from .registry import installed

_EPILOG = """\
examples:
  dataset-handlers list
  dataset-handlers describe --dataset coco
  dataset-handlers plan  --dataset coco --config config.json --raw-root RAW --work-dir OUT
  dataset-handlers build --dataset coco --config config.json --raw-root RAW --work-dir OUT --workers 2

OUT/dataset is then a folder that tensorflow_datasets.builder_from_directory() opens.
A server gives one REQUEST.json instead of the options; see dataset_handlers/commands.py.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="dataset-handlers",
        description="Turn raw data into TFRecord datasets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["list", "describe", "plan", "build"])
    parser.add_argument("request", nargs="?", type=Path, metavar="REQUEST.json", help="the whole request")
    parser.add_argument("--dataset", metavar="NAME", help="a handler that `list` shows")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config, a JSON object (default: {})")
    parser.add_argument("--raw-root", metavar="DIR", help="where the raw folders are")
    parser.add_argument("--work-dir", metavar="DIR", help="where plan, shards and dataset go")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, entry in installed().items():
            print(f"{name}\t{entry.value}")
        return 0
    if options.request is None and options.dataset is None:
        parser.error("give a REQUEST.json, or --dataset and what else the command needs")
    if options.request is None and options.command != "describe" and not (options.raw_root and options.work_dir):
        parser.error(f"{options.command} needs --raw-root and --work-dir")
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely: workers are ended too
    with _events() as out:

        def emit(event: dict[str, Any]) -> None:
            try:
                out.write(json.dumps(event, separators=(",", ":")) + "\n")
                out.flush()
            except BrokenPipeError:
                raise KeyboardInterrupt from None  # nobody listens any more

        try:
            from .commands import COMMANDS, check_request

            COMMANDS[options.command](check_request(_request(options)), emit)
        except HandlerError as error:
            emit({"event": "error", **error.to_json()})
            return 1
        except KeyboardInterrupt:
            return 130
        except BaseException as error:  # the boundary: whatever a handler raises, also SystemExit, becomes its fault
            traceback.print_exc()
            emit({"event": "error", "code": "handler_failed", "message": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _request(options: argparse.Namespace) -> Any:
    try:
        if options.request is not None:
            return json.loads(options.request.read_bytes())
        config = json.loads(options.config.read_bytes()) if options.config else {}
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{options.request or options.config} cannot be read: {error}") from error
    request = {"handler_api": HANDLER_API, "dataset": options.dataset, "config": config}
    for name in ("raw_root", "work_dir", "workers"):
        if getattr(options, name) is not None:
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
