"""What a person sees while a model trains: a bar per epoch, and a line when it is done; all on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from tqdm import tqdm

from training.result import EpochRecord


@contextmanager
def epoch_bar(epoch: int, epochs: int, batches: int, *, shown: bool) -> Iterator[list[Any]]:
    """A bar over the batches of one epoch, gone at its end. Gives the callbacks that move it, if any."""
    if not shown:
        yield []
        return
    with tqdm(total=batches, desc=f"epoch {epoch}/{epochs}", unit="batch", leave=False, disable=None) as bar:
        yield [_MoveBar(bar)]


class _MoveBar(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Moves a bar on by a batch, and shows the running loss."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002  # Keras' signature
        if logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4f}", refresh=False)
        self.bar.update()


def show_measured_on(train: str, validation: str) -> None:
    """Write which split the checkpoint is chosen on, where that makes its IoU an optimistic one."""
    if validation == train:
        sys.stderr.write(f"measuring on {validation!r}, the split that is trained on: this shows fit, not skill\n")
    elif validation == "test":
        sys.stderr.write(
            "measuring on 'test': the best checkpoint is chosen on it, which makes its IoU optimistic; "
            "for an honest one, request splits such as {'train': 0.9, 'validation': 0.1}\n"
        )


def show_epoch(record: EpochRecord, epochs: int, *, best: bool) -> None:
    """Write the line of a finished epoch."""
    name = f"epoch {record.epoch}/{epochs}" if record.epoch else "untrained"
    learned = "" if record.loss is None else f"loss {record.loss:.4f}  IoU {record.iou:.4f}"
    sys.stderr.write(
        f"{name:<14} {learned:<24}   validation: loss {record.val_loss:.4f}  IoU {record.val_iou:.4f}"
        f"   {record.seconds:.1f} s{'   ← best so far' if best else ''}\n"
    )
