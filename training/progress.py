"""What a person sees while a model trains: a bar per epoch, and a line when it is done; all on stderr."""

import sys

from tqdm import tqdm

from training.result import EpochRecord


class EpochBar:
    """A bar over the batches of one epoch, of which ``done`` are done and ``left`` are to come; gone at its end."""

    def __init__(self, epoch: int, epochs: int, done: int, left: int, *, shown: bool) -> None:
        # None: shown where stderr is a terminal.
        self._bar = tqdm(
            total=done + left,
            initial=done,
            desc=f"epoch {epoch}/{epochs}",
            unit="batch",
            leave=False,
            disable=None if shown else True,
        )

    def __enter__(self) -> "EpochBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def move(self, loss: float) -> None:
        """One batch more, and its loss."""
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update()


def show_measured_on(train: str, validation: str) -> None:
    """Write which split the checkpoint is chosen on, where that makes its IoU an optimistic one."""
    if validation == train:
        sys.stderr.write(f"measuring on {validation!r}, the split that is trained on: this shows fit, not skill\n")
    elif validation == "test":
        sys.stderr.write(
            "measuring on 'test': the best checkpoint is chosen on it, which makes its IoU optimistic; "
            "for an honest one, request splits such as {'train': 0.9, 'validation': 0.1}\n"
        )


def show_resumed(epoch: int, step: int) -> None:
    """Write where a training goes on."""
    sys.stderr.write(f"resuming in epoch {epoch}, after step {step}\n")


def show_epoch(record: EpochRecord, epochs: int, *, best: bool) -> None:
    """Write the line of a finished epoch."""
    name = f"epoch {record.epoch}/{epochs}" if record.epoch else "untrained"
    learned = "" if record.loss is None else f"loss {record.loss:.4f}  IoU {record.iou:.4f}"
    sys.stderr.write(
        f"{name:<14} {learned:<24}   validation: loss {record.val_loss:.4f}  IoU {record.val_iou:.4f}"
        f"   {record.seconds:.1f} s{'   ← best so far' if best else ''}\n"
    )
