"""Native tf.data, WebDataset, LitData and MosaicML Streaming, each as its documentation advises.

    python -m benchmarks.reading.peers webdataset pack DATASET FOLDER
    python -m benchmarks.reading.peers webdataset read FOLDER --form torch --flavour tight --workers 2

``pack`` writes the JPEGs and PNGs of our own dataset, byte by byte, in the peer's format. Buffers of shuffles hold
1,000 examples. https://webdataset.github.io/webdataset/, https://github.com/Lightning-AI/litData#speed-up-model-training,
https://docs.mosaicml.com/projects/streaming/, https://www.tensorflow.org/guide/data_performance
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", HF_HUB_OFFLINE="1")

from benchmarks.ours import read_shards
from benchmarks.reading import work

SHARD_BYTES = 64 << 20
BUFFER = 1000


def pairs(dataset: Path) -> Iterator[tuple[bytes, bytes]]:
    yield from read_shards(sorted(dataset.glob("*.tfrecord-*")))


def to_epochs(make, form: str, workers: int):
    """Epochs of a torch dataset of single (photo, mask) arrays: by the ``DataLoader``, or stacked as numpy."""
    if form == "numpy":
        return lambda epoch: work.stacked(make(epoch))
    from torch.utils.data import DataLoader

    loader = DataLoader(make(0), batch_size=work.BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda _epoch: iter(loader)


# --- WebDataset ---------------------------------------------------------------------------------------------


def pack_webdataset(dataset: Path, out: Path) -> None:
    import webdataset as wds

    with wds.ShardWriter(str(out / "train-%06d.tar"), maxsize=SHARD_BYTES / 16, verbose=0) as writer:
        for number, (jpeg, png) in enumerate(pairs(dataset)):
            writer.write({"__key__": f"{number:08d}", "jpg": jpeg, "mask.png": png})


def webdataset(out: Path, form: str, flavour: str, workers: int):
    import webdataset as wds

    decode = work.DECODERS[flavour]
    shards = [str(path) for path in sorted(out.glob("*.tar"))]
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), seed=work.SEED).shuffle(BUFFER)
    examples = dataset.to_tuple("jpg", "mask.png").map(lambda pair: decode(*pair))
    return to_epochs(lambda _epoch: examples, form, workers)


# --- LitData ------------------------------------------------------------------------------------------------


def _example(pair: tuple[bytes, bytes]) -> dict:
    return {"image": pair[0], "mask": pair[1]}


def pack_litdata(dataset: Path, out: Path) -> None:
    import litdata

    litdata.optimize(
        fn=_example, inputs=list(pairs(dataset)), output_dir=str(out), num_workers=1, chunk_bytes="4MB",
        start_method="fork", verbose=False,
    )  # fmt: skip


def litdata(out: Path, form: str, flavour: str, workers: int):
    import litdata

    decode = work.DECODERS[flavour]

    class Photos(litdata.StreamingDataset):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return decode(item["image"], item["mask"])

    dataset = Photos(str(out), shuffle=True, seed=work.SEED)
    if form == "numpy":
        return lambda _epoch: work.stacked(dataset)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=work.BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda _epoch: iter(loader)


# --- MosaicML Streaming -------------------------------------------------------------------------------------


def _streaming():
    """Import it without torchvision, of which PyTorch's CPU build has none (see benchmarks/peers/mosaicml.py)."""
    import torch

    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import streaming

    return streaming


def pack_mosaicml(dataset: Path, out: Path) -> None:
    columns = {"image": "bytes", "mask": "bytes"}
    with _streaming().MDSWriter(out=str(out), columns=columns, size_limit=SHARD_BYTES // 16) as writer:
        for pair in pairs(dataset):
            writer.write(_example(pair))


def mosaicml(out: Path, form: str, flavour: str, workers: int):
    decode = work.DECODERS[flavour]
    streaming = _streaming()
    # Processes that read one folder would share its state: each reads a folder of its own, of links to the same files.
    local = shutil.copytree(out, Path(tempfile.mkdtemp(dir=out.parent)) / out.name, copy_function=os.link)

    class Photos(streaming.StreamingDataset):
        def __getitem__(self, at):
            item = super().__getitem__(at)
            return decode(item["image"], item["mask"])

    dataset = Photos(local=str(local), shuffle=True, shuffle_seed=work.SEED, batch_size=work.BATCH)
    if form == "numpy":
        return lambda _epoch: work.stacked(dataset)
    loader = streaming.StreamingDataLoader(
        dataset, batch_size=work.BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda _epoch: iter(loader)


# --- tf.data ------------------------------------------------------------------------------------------------


def pack_tfdata(dataset: Path, out: Path) -> None:
    for path in dataset.glob("*.tfrecord-*"):
        shutil.copy(path, out)


def tfdata(out: Path, _form: str, flavour: str, workers: int):
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(max(workers, 1))
    tf.config.threading.set_intra_op_parallelism_threads(max(workers, 1))
    method = "INTEGER_ACCURATE" if flavour == "tight" else ""  # its own default is fast and inexact
    kinds = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "mask")}

    def parse(record):
        example = tf.io.parse_single_example(record, kinds)
        photo = tf.io.decode_jpeg(example["image"], channels=3, dct_method=method)
        return photo, tf.io.decode_png(example["mask"], channels=1)

    files = tf.data.Dataset.from_tensor_slices(sorted(map(str, out.glob("*.tfrecord-*")))).shuffle(100)
    records = files.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE)
    batches = records.shuffle(BUFFER).map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(work.BATCH)
    ready = batches.prefetch(tf.data.AUTOTUNE)
    return lambda _epoch: iter(ready)


PEERS = {
    "webdataset": (pack_webdataset, webdataset),
    "litdata": (pack_litdata, litdata),
    "mosaicml": (pack_mosaicml, mosaicml),
    "tfdata": (pack_tfdata, tfdata),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("dataset", type=Path)
    packing.add_argument("out", type=Path)
    reading = commands.add_parser("read")
    reading.add_argument("out", type=Path)
    reading.add_argument("--form", choices=("numpy", "torch"), default="numpy")
    reading.add_argument("--flavour", choices=work.DECODERS, default="usual")
    reading.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    pack, read = PEERS[options.peer]
    if options.command == "pack":
        options.out.mkdir(parents=True)
        pack(options.dataset, options.out)
    else:
        work.serve(read(options.out, options.form, options.flavour, options.workers))


if __name__ == "__main__":
    main()
