"""MosaicML Streaming: an MDSWriter in each process of a pool, then one index.

https://docs.mosaicml.com/projects/streaming/en/stable/preparing_datasets/parallel_dataset_conversion.html, its second
way: groups are converted in parallel into folders of their own, and `merge_index` makes one dataset of them. Columns
are bytes: MDS's own ``jpeg`` writes quality 75.
"""

import multiprocessing as mp
from collections.abc import Iterator
from pathlib import Path

import torch

# There is no torchvision for PyTorch's CPU build; without the operators that it would bring, it cannot be imported.
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory, merge_index  # noqa: E402

from benchmarks.peers import work  # noqa: E402

COLUMNS = {"key": "str", "image": "bytes", "mask": "bytes"}


def write(job: tuple[int, list[dict], Path, str]) -> None:
    number, samples, out, flavour = job
    function = work.FLAVOURS[flavour]
    with MDSWriter(out=str(out / f"{number:05d}"), columns=COLUMNS, size_limit=work.SHARD_BYTES) as writer:
        for sample in samples:
            jpeg, png = function(sample)
            writer.write({"key": sample["key"], "image": jpeg, "mask": png})


def build(samples: list[dict], out: Path, processes: int, flavour: str) -> None:
    with mp.Pool(processes) as pool:
        jobs = [(number, part, out, flavour) for number, part in enumerate(work.slices(samples, processes))]
        pool.map(write, jobs, chunksize=1)
        pool.close()
        pool.join()
    merge_index(str(out), keep_local=True)


def read(out: Path) -> Iterator[work.Pair]:
    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(out), shuffle=False, batch_size=1)
    for number in range(dataset.num_samples):
        sample = dataset[number]
        yield sample["image"], sample["mask"]


if __name__ == "__main__":
    work.main(build, read)
