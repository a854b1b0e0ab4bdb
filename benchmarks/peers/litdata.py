"""LitData: ``optimize`` with workers.

https://github.com/Lightning-AI/litData#speed-up-model-training: a function returns a dictionary for each input, chunks
are of 64 MB. Workers are forked, which its documentation does not advise, so that they need not import PyTorch again.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import litdata

from benchmarks.peers import work


def example(sample: dict, flavour: str) -> dict:
    jpeg, png = work.FLAVOURS[flavour](sample)
    return {"key": sample["key"], "image": jpeg, "mask": png}


def build(samples: list[dict], out: Path, processes: int, flavour: str) -> None:
    litdata.optimize(
        fn=functools.partial(example, flavour=flavour),
        inputs=samples,
        output_dir=str(out),
        num_workers=processes,
        chunk_bytes="64MB",
        start_method="fork",
        verbose=False,
    )


def read(out: Path) -> Iterator[work.Pair]:
    for item in litdata.StreamingDataset(str(out)):
        yield item["image"], item["mask"]


if __name__ == "__main__":
    work.main(build, read)
