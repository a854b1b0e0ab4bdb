"""Our readers.

python -m benchmarks.reading.ours numpy DATASET --workers 0        # or tf, torch, threads
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.reading import work
from dataset_client.dataset import Dataset


def open_dataset(folder: Path) -> Dataset:
    """A build's dataset, to which no server has given an id yet."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return Dataset(folder, {"dataset_id": "benchmark"} | manifest, {})


def numpy_epochs(dataset: Dataset, workers: int):
    loader = dataset.loader("train", batch_size=work.BATCH, shuffle=True, seed=work.SEED, workers=workers)

    def epochs(epoch: int) -> Iterator:
        loader.set_epoch(epoch)
        return ((batch["image"], batch["mask"]) for batch in loader)

    return epochs


def torch_epochs(dataset: Dataset, workers: int):
    from torch.utils.data import DataLoader

    batches = dataset.as_torch_dataset("train", batch_size=work.BATCH, shuffle=True, seed=work.SEED)
    loader = DataLoader(batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

    def epochs(epoch: int) -> Iterator:
        batches.set_epoch(epoch)
        return ((batch["image"], batch["mask"]) for batch in loader)

    return epochs


def thread_epochs(dataset: Dataset, workers: int):
    """Tensors, too, but decoded in threads of one process."""
    batches = dataset.as_torch_dataset("train", batch_size=work.BATCH, shuffle=True, seed=work.SEED, workers=workers)

    def epochs(epoch: int) -> Iterator:
        batches.set_epoch(epoch)
        return ((batch["image"], batch["mask"]) for batch in batches)

    return epochs


def tf_epochs(dataset: Dataset, workers: int):
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(max(workers, 1))
    tf.config.threading.set_intra_op_parallelism_threads(max(workers, 1))
    batches = dataset.as_tf_dataset("train", batch_size=work.BATCH, shuffle=1000)
    return lambda _epoch: ((batch["image"], batch["mask"]) for batch in batches)


FORMS = {"numpy": numpy_epochs, "torch": torch_epochs, "threads": thread_epochs, "tf": tf_epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    work.serve(FORMS[options.form](open_dataset(options.dataset), options.workers))


if __name__ == "__main__":
    main()
