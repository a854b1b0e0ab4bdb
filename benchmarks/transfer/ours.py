"""What the benchmarks measure of ours: an archive fetched, verified and published in an empty cache.

    python -m benchmarks.transfer.ours CACHE --archive JSON
    python -m benchmarks.transfer.ours CACHE --request JSON --server URL

An archive from wherever its URL is, or the answer to a request: asking, hearing and fetching.
"""

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks.transfer.moment import say
from dataset_client.answers import Archive
from dataset_client.cache import Cache
from dataset_client.fetching import fetch
from dataset_client.online import obtain
from dataset_client.progress import SilentReporter
from dataset_client.request import make_request
from dataset_client.settings import DEFAULT_SERVER_URL, Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--archive", type=json.loads)
    parser.add_argument("--request", type=json.loads)
    parser.add_argument("--server", default=DEFAULT_SERVER_URL)
    options = parser.parse_args()
    settings = Settings(options.server, options.cache)
    say("clock")
    if options.archive:
        cached = asyncio.run(fetch(settings, Archive(**options.archive), Cache(options.cache), SilentReporter()))
    else:
        request = make_request(**options.request)
        cached = asyncio.run(obtain(request, settings, SilentReporter()))
    say("done", path=str(cached.path))


if __name__ == "__main__":
    main()
