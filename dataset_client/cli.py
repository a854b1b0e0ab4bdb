"""The command ``dataset-client``: ask for datasets, watch them being made, and look after those that are here.

Results go to stdout and all else to stderr; ``--help`` lists what an exit status means (`grammar`).
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_client import listing, upkeep
from dataset_client.api import pull_dataset, request_dataset
from dataset_client.cache import Cache
from dataset_client.dataset import Dataset
from dataset_client.errors import (
    DatasetClientError,
    InvalidRequestError,
    MissingDependencyError,
    WaitTimeoutError,
)
from dataset_client.grammar import make_parser
from dataset_client.opening import find_cached, open_dataset
from dataset_client.request import make_request
from dataset_client.settings import parse_size, resolve_cache_dir, resolve_settings
from dataset_client.watching import watch

ERROR, NOT_THIS_TIME, INTERRUPTED = 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser(_COMMANDS)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line could go on
        with contextlib.suppress(ImportError):
            import argcomplete  # type: ignore[import-not-found, unused-ignore]

            argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except DatasetClientError as error:
        print(f"dataset-client: {error}", file=sys.stderr)
        return NOT_THIS_TIME if error.transient or isinstance(error, WaitTimeoutError) else ERROR
    except KeyboardInterrupt as interrupt:
        print(f"\ndataset-client: {interrupt or 'Interrupted.'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    return status


def _request(options: argparse.Namespace) -> int:
    return _print_dataset(
        request_dataset(
            options.name,
            options.version,
            _read_config(options.config),
            server_url=options.server,
            cache_dir=options.cache_dir,
            token=options.token,
            timeout=options.timeout,
            progress=not options.quiet,
            offline=options.offline,
        ),
        options,
    )


def _pull(options: argparse.Namespace) -> int:
    return _print_dataset(
        pull_dataset(
            options.dataset_id,
            server_url=options.server,
            cache_dir=options.cache_dir,
            token=options.token,
            timeout=options.timeout,
            progress=not options.quiet,
        ),
        options,
    )


def _print_dataset(dataset: Dataset, options: argparse.Namespace) -> int:
    shown = {
        "dataset_id": dataset.dataset_id,
        "path": str(dataset.path),
        "config": dataset.config,
        "splits": dataset.splits,
    }
    print(json.dumps(shown) if options.json else dataset.path)
    return 0


def _watch(options: argparse.Namespace) -> int:
    requests = [make_request(name, version, _read_config(config)) for name, version, config in options.requests]
    return asyncio.run(_follow([*options.topics, *requests], options))


async def _follow(topics: Sequence[Any], options: argparse.Namespace) -> int:
    last = dict[str, str]()
    watching = watch(topics, server_url=options.server, token=options.token, timeout=options.timeout)
    async with contextlib.aclosing(watching) as events:
        async for event in events:
            last[event.topic_id] = event.kind
            text = event.to_json() if options.json else listing.format_event(event, with_topic=len(topics) > 1)
            print(text, flush=True)
    return 0 if set(last.values()) == {"ready"} else ERROR


def _list(options: argparse.Namespace) -> int:
    rows, damaged = listing.rows_of(_cache(options).entries())
    _print(options, [row.as_dict() for row in rows], listing.format_rows(rows))
    for error in damaged:
        print(f"dataset-client: damaged: {error.message}", file=sys.stderr)
    return 0


def _show(options: argparse.Namespace) -> int:
    dataset = open_dataset(options.dataset, cache_dir=options.cache_dir)
    _print(options, dataset.manifest, listing.format_dataset(dataset))
    return 0


def _verify(options: argparse.Namespace) -> int:
    cache, found = _cache(options), list[dict[str, Any]]()
    named: list[Path | None] = [path for dataset in options.dataset for path in find_cached(dataset, cache)]
    for which in named if options.dataset else [None]:
        for path, faults in upkeep.verify(cache, which):
            found.append({"path": str(path), "faults": faults})
            if not options.json:
                print(f"{'damaged' if faults else 'ok':<8} {path}", *(f"  {fault}" for fault in faults), sep="\n")
    if options.json:
        print(json.dumps(found, indent=2))
    return ERROR if any(entry["faults"] for entry in found) else 0


def _remove(options: argparse.Namespace) -> int:
    cache = _cache(options)
    for path in {path: None for dataset in options.dataset for path in find_cached(dataset, cache)}:
        print(f"{listing.format_bytes(upkeep.remove(cache, path, force=options.force)):>9}  {path.name}")
    return 0


def _collect(options: argparse.Namespace) -> int:
    settings = resolve_settings(cache_dir=options.cache_dir)
    limit = settings.cache_limit if options.limit is None else parse_size(options.limit)
    entries = upkeep.collect(Cache(settings.cache_dir), limit, dry_run=options.dry_run)
    what = "Would remove" if options.dry_run else "Removed"
    _print(options, listing.usage_as_json(entries), listing.format_collected(entries, what))
    return 0


def _usage(options: argparse.Namespace) -> int:
    entries = sorted(upkeep.usage(_cache(options)), key=lambda entry: entry.last_used)
    _print(options, listing.usage_as_json(entries), listing.format_usage(entries))
    return 0


def _completion(options: argparse.Namespace) -> int:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise MissingDependencyError(
            "argcomplete is not installed", remedy="pip install 'remote-dataset-pipeline[completion]'"
        ) from error
    print(shellcode(["dataset-client"], shell=options.shell))
    return 0


_COMMANDS = {
    "request": _request,
    "pull": _pull,
    "watch": _watch,
    "ls": _list,
    "show": _show,
    "verify": _verify,
    "rm": _remove,
    "gc": _collect,
    "du": _usage,
    "completion": _completion,
}


def _cache(options: argparse.Namespace) -> Cache:
    return Cache(resolve_cache_dir(options.cache_dir))


def _print(options: argparse.Namespace, machine: Any, text: str) -> None:
    print(json.dumps(machine, indent=2) if options.json else text)


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
