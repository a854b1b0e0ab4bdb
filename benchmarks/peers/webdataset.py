"""WebDataset: a ShardWriter in each process of a pool.

https://webdataset.github.io/webdataset/creating/: samples are dictionaries with ``__key__`` and files by extension;
bytes are stored as they are. Shards by several processes get names of their own.
"""

import multiprocessing as mp
from collections.abc import Iterator
from pathlib import Path

import webdataset as wds

from benchmarks.peers import work


def write(job: tuple[int, list[dict], Path, str]) -> None:
    number, samples, out, flavour = job
    function = work.FLAVOURS[flavour]
    with wds.ShardWriter(str(out / f"train-{number}-%06d.tar"), maxsize=work.SHARD_BYTES, verbose=0) as writer:
        for sample in samples:
            jpeg, png = function(sample)
            writer.write({"__key__": sample["key"], "jpg": jpeg, "mask.png": png})


def build(samples: list[dict], out: Path, processes: int, flavour: str) -> None:
    with mp.Pool(processes) as pool:
        jobs = [(number, part, out, flavour) for number, part in enumerate(work.slices(samples, processes))]
        pool.map(write, jobs, chunksize=1)
        pool.close()
        pool.join()


def read(out: Path) -> Iterator[work.Pair]:
    shards = [str(path) for path in sorted(out.glob("*.tar"))]
    yield from wds.WebDataset(shards, shardshuffle=False).to_tuple("jpg", "mask.png")


if __name__ == "__main__":
    work.main(build, read)
