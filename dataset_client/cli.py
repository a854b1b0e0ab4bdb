"""The command ``dataset-client``: ask for a dataset, list what is here, show one.

Results go to stdout and all else to stderr. Exit status: 0 done, 1 an error (what happened and what to do
about it), 2 wrong usage, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_client import listing
from dataset_client.api import open_dataset, request_dataset
from dataset_client.cache import Cache
from dataset_client.errors import DatasetClientError, InvalidRequestError
from dataset_client.settings import DEFAULT_SERVER_URL, resolve_cache_dir

_EPILOG = f"""\
examples:
  echo '{{"image_size": [320, 320]}}' > duts.json
  dataset-client request duts v1.2.0 duts.json
  ls "$(dataset-client request duts v1.2.0 duts.json)"
  echo '{{"limit": 10}}' | dataset-client request coco v1.2.0 - --server http://data:8710 --timeout 3600
  dataset-client ls
  dataset-client show duts_v1.2.0

environment:
  DATASET_SERVER_URL     the server ({DEFAULT_SERVER_URL} if unset)
  DATASET_SERVER_TOKEN   the token, if the server wants one
  DATASET_CACHE_DIR      where datasets are kept
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except DatasetClientError as error:
        print(f"dataset-client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"\ndataset-client: {interrupt or 'Interrupted.'}", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="dataset-client",
        description="Ask a dataset server for a dataset, and look at those that are here.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_request(commands)
    listed = commands.add_parser(
        "ls", help="list the datasets in the cache", description="List the datasets in the cache."
    )
    listed.add_argument("--json", action="store_true", help="print a JSON array")
    _add_cache_dir(listed)
    listed.set_defaults(run=_list)
    shown = commands.add_parser("show", help="show what a dataset holds", description="Show what a dataset holds.")
    shown.add_argument("dataset", metavar="DATASET", help="its id, the beginning of it, or the path of its directory")
    shown.add_argument("--json", action="store_true", help="print the whole manifest")
    _add_cache_dir(shown)
    shown.set_defaults(run=_show)
    return parser


def _add_request(commands: Any) -> None:
    parser = commands.add_parser(
        "request",
        help="get a dataset and print where it is",
        description="Ask for a dataset, wait until the server has made it, download and verify it, and print the path "
        "of its directory. Asking again for the same takes it from the cache. Ctrl-C ends the waiting, not the build.",
    )
    parser.add_argument("name", metavar="NAME", help="the dataset, for example duts")
    parser.add_argument("version", metavar="VERSION", help="release, tag or commit of its handler, for example v1.2.0")
    parser.add_argument("config", metavar="CONFIG.json", help="file with the handler's options, or - for stdin")
    parser.add_argument("--server", metavar="URL", help="root of the server (default: $DATASET_SERVER_URL)")
    parser.add_argument(
        "--token",
        help="bearer token (default: $DATASET_SERVER_TOKEN, which, unlike this, no process list shows)",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="stop waiting then (default: never)")
    parser.add_argument("--offline", action="store_true", help="take it from the cache or fail; no network")
    parser.add_argument("--no-progress", action="store_true", help="print nothing but the path, and errors")
    _add_cache_dir(parser)
    parser.set_defaults(run=_request)


def _add_cache_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-dir", metavar="DIR", help="where datasets are kept (default: $DATASET_CACHE_DIR)")


def _request(options: argparse.Namespace) -> None:
    dataset = request_dataset(
        options.name,
        options.version,
        _read_config(options.config),
        server_url=options.server,
        cache_dir=options.cache_dir,
        token=options.token,
        timeout=options.timeout,
        progress=not options.no_progress,
        offline=options.offline,
    )
    print(dataset.path)


def _list(options: argparse.Namespace) -> None:
    cache = Cache(resolve_cache_dir(options.cache_dir))
    rows, damaged = listing.rows_of(cache.entries())
    print(json.dumps([row.as_dict() for row in rows], indent=2) if options.json else listing.format_rows(rows))
    for error in damaged:
        print(f"dataset-client: damaged: {error.message}", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    dataset = open_dataset(options.dataset, cache_dir=options.cache_dir)
    print(json.dumps(dataset.manifest, indent=2) if options.json else listing.format_dataset(dataset))


def _read_config(source: str) -> dict[str, Any]:
    """The config from a file or from stdin; raises `InvalidRequestError`."""
    name = "stdin" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        config = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the config in {name} cannot be read: {error}",
            remedy="It is a file with one JSON object, or - for stdin.",
        ) from error
    if not isinstance(config, dict):
        raise InvalidRequestError(f"the config in {name} is not a JSON object")
    return config


if __name__ == "__main__":
    sys.exit(main())
