"""The grammar of the command line, and its help."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dataset_client.cache import Cache
from dataset_client.errors import DatasetClientError
from dataset_client.settings import DEFAULT_SERVER_URL, KEYS, resolve_cache_dir

SHELLS = ("bash", "zsh", "fish")
Run = Callable[[argparse.Namespace], int]

_EXIT = """\
exit status:
  0    done
  1    an error; stderr says what happened and what to do about it
  2    wrong usage
  3    not this time: --timeout is over, or the server is away or busy; the same command may succeed later
  130  interrupted
"""

_EPILOG = f"""\
examples:
  echo '{{"image_size": [320, 320]}}' > duts.json
  dataset-client request duts v1.2.0 duts.json
  ls "$(dataset-client request --quiet duts v1.2.0 duts.json)"
  dataset-client ls
  dataset-client gc --limit 200GB --dry-run

environment, each before the key of the same meaning in the settings file:
  {KEYS["server_url"]:<22} server_url   the server ({DEFAULT_SERVER_URL} if unset)
  {KEYS["token"]:<22} token        the token, if the server wants one
  {KEYS["cache_dir"]:<22} cache_dir    where datasets are kept
  {KEYS["cache_limit"]:<22} cache_limit  how much they may take, such as 200GB
  DATASET_CLIENT_CONFIG               the settings file (~/.config/dataset-client/config.toml if unset)

Results go to stdout, all else to stderr.

{_EXIT}"""


def make_parser(commands: Mapping[str, Run]) -> argparse.ArgumentParser:
    """The grammar; ``commands`` are what is run for each, by name. The chosen one is the namespace's ``run``."""
    parser = argparse.ArgumentParser(
        prog="dataset-client",
        description="Ask a dataset server for datasets, and look after those that are here.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, define in _DEFINITIONS.items():
        command = define(added)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.set_defaults(run=commands[name])
    return parser


def _request(added: Any) -> Any:
    command = added.add_parser(
        "request",
        help="get a dataset and print where it is",
        description="Ask for a dataset, wait until the server has made it, download and verify it, and print the path "
        "of its directory.\nAsking again for the same takes it from the cache. Ctrl-C ends the waiting, not the build.",
        epilog="examples:\n"
        "  dataset-client request duts v1.2.0 duts.json\n"
        "  echo '{\"limit\": 10}' | dataset-client request coco v1.2.0 - --server http://data:8710 --timeout 3600\n"
        f"  dataset-client request --offline duts v1.2.0 duts.json\n\n{_EXIT}",
    )
    command.add_argument("name", metavar="NAME", help="the dataset, for example duts")
    command.add_argument("version", metavar="VERSION", help="release, tag or commit of its handler, for example v1.2.0")
    command.add_argument("config", metavar="CONFIG.json", help="file with the handler's options, or - for stdin")
    command.add_argument("--offline", action="store_true", help="take it from the cache or fail; no network")
    _add_network(command)
    _add_fetching(command)
    return command


def _pull(added: Any) -> Any:
    command = added.add_parser(
        "pull",
        help="get a dataset of the server by its id",
        description="Download and verify a dataset that the server has, and print the path of its directory.\n"
        "One that is being made is waited for. Nothing is built for it, and no config is needed.",
        epilog=f"example:\n  dataset-client pull duts_v1.2.0_99914b932bd37a50b983c5e7c90ae93b.zip\n\n{_EXIT}",
    )
    command.add_argument("dataset_id", metavar="DATASET_ID", help="as the server or a colleague's `ls` shows it")
    _add_network(command)
    _add_fetching(command)
    return command


def _watch(added: Any) -> Any:
    command = added.add_parser(
        "watch",
        help="show what happens on topics",
        description="Print what the server says on topics, one line per event, until the current attempt at each has "
        "ended.\nThe status is 1 if one has not ended well. Nothing is asked for.",
        epilog="examples:\n"
        "  dataset-client watch duts_v1.2.0_99914b932bd37a50b983c5e7c90ae93b.zip\n"
        "  dataset-client watch --json --request duts v1.2.0 duts.json --request coco v1.2.0 coco.json\n\n"
        f"{_EXIT}",
    )
    command.add_argument("topics", metavar="TOPIC", nargs="*", help="a topic's id")
    command.add_argument(
        "--request",
        dest="requests",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "VERSION", "CONFIG.json"),
        help="the topic of this request",
    )
    command.add_argument("--json", action="store_true", help="print each event as a JSON object on its line")
    _add_network(command)
    return command


def _list(added: Any) -> Any:
    command = added.add_parser(
        "ls", help="list the datasets in the cache", description="List the datasets that are here."
    )
    _add_json(command, "print a JSON array")
    _add_cache_dir(command)
    return command


def _show(added: Any) -> Any:
    command = added.add_parser(
        "show", help="show what a dataset holds", description="Show what a dataset of the cache holds."
    )
    _add_dataset(command)
    _add_json(command, "print the whole manifest")
    _add_cache_dir(command)
    return command


def _verify(added: Any) -> Any:
    command = added.add_parser(
        "verify",
        help="hash datasets of the cache again",
        description="Hash every file again, of some datasets or of all. The status is 1 if one is damaged; asking for "
        "it again mends it.",
    )
    _add_dataset(command, nargs="*", more="; all if none is named")
    _add_json(command, "print a JSON array of paths and faults")
    _add_cache_dir(command)
    return command


def _remove(added: Any) -> Any:
    command = added.add_parser(
        "rm",
        help="remove datasets from the cache",
        description="Remove datasets from the cache: all revisions of an id, or the one whose path is given.",
    )
    _add_dataset(command, nargs="+")
    command.add_argument("--force", action="store_true", help="also what a process has open")
    _add_cache_dir(command)
    return command


def _collect(added: Any) -> Any:
    command = added.add_parser(
        "gc",
        help="remove what is not needed from the cache",
        description="Remove what later revisions have replaced, shards without their dataset, downloads that nobody "
        "went on with for a week,\nand halves of datasets that were left a day ago; then, down to the limit, what was "
        "not used for longest.\nNothing goes that a process has open.",
        epilog="examples:\n  dataset-client gc\n  dataset-client gc --limit 200GB --dry-run\n",
    )
    command.add_argument("--limit", metavar="SIZE", help="such as 200GB (default: cache_limit, or no limit)")
    command.add_argument("--dry-run", action="store_true", help="only say what would go")
    _add_json(command, "print a JSON array")
    _add_cache_dir(command)
    return command


def _usage(added: Any) -> Any:
    command = added.add_parser(
        "du",
        help="show what the cache takes",
        description="Show what each dataset takes on the disk, and what all take, the longest unused first.",
    )
    _add_json(command, "print a JSON array; times in seconds since 1970")
    _add_cache_dir(command)
    return command


def _completion(added: Any) -> Any:
    command = added.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Print what makes a shell complete commands, options and the ids of datasets in the cache.\n"
        "Needs the extra `completion`.",
        epilog="examples:\n"
        '  eval "$(dataset-client completion bash)"          # in ~/.bashrc, or zsh in ~/.zshrc\n'
        "  dataset-client completion fish > ~/.config/fish/completions/dataset-client.fish\n",
    )
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help="|".join(SHELLS))
    return command


_DEFINITIONS = {
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


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", metavar="URL", help="root of the server (default: $DATASET_SERVER_URL)")
    command.add_argument(
        "--token", help="bearer token (default: $DATASET_SERVER_TOKEN, which, unlike this, no process list shows)"
    )
    command.add_argument("--timeout", type=float, metavar="SECONDS", help="stop waiting then (default: never)")


def _add_fetching(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="print nothing but the result, and errors")
    _add_json(command, "print a JSON object: dataset_id, path, config and splits")
    _add_cache_dir(command)


def _add_json(command: argparse.ArgumentParser, meaning: str) -> None:
    command.add_argument("--json", action="store_true", help=meaning)


def _add_cache_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cache-dir", metavar="DIR", help="where datasets are kept (default: $DATASET_CACHE_DIR)")


def _add_dataset(command: argparse.ArgumentParser, *, nargs: str | None = None, more: str = "") -> None:
    meaning = f"its id, the beginning of it, or the path of its directory{more}"
    argument: Any = command.add_argument("dataset", metavar="DATASET", nargs=nargs, help=meaning)
    argument.completer = _names_here  # which argcomplete looks for


def _names_here(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """The ids in the cache that begin so."""
    try:
        paths = Cache(resolve_cache_dir(getattr(parsed_args, "cache_dir", None), environ=os.environ)).paths()
    except DatasetClientError:
        return []
    return sorted({f"{path.name.rpartition('-')[0]}.zip" for path in paths if path.name.startswith(prefix)})
