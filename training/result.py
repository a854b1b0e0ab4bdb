"""What a training leaves: a record per epoch, how good the model became, and where its files are."""

from dataclasses import dataclass

from training.outputs import Outputs


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. Epoch 0 is the untrained model: it has no ``loss`` and ``iou``, which are taken while
    training.

    IoU is in [0, 1]: of one subject at threshold 0.5 over all pixels of the split, or the mean over classes; ``val_``
    marks the validation split. ``learning_rate`` is what the next step would have. ``seconds`` are of the whole epoch,
    ``waited`` is the share in [0, 1] of the time of its steps in which these waited for a batch.
    """

    epoch: int
    loss: float | None
    iou: float | None
    val_loss: float
    val_iou: float
    learning_rate: float | None = None
    seconds: float = 0.0
    waited: float | None = None

    @property
    def score(self) -> tuple[float, float]:
        """Greater is better: a higher validation IoU; of equal ones, a lower validation loss."""
        return self.val_iou, -self.val_loss


@dataclass(frozen=True)
class FitResult:
    """A finished training.

    ``validation_split`` names the split that was measured on: ``iou_before`` is the IoU there of the untrained model,
    ``iou_after`` that of the checkpoint, measured after reading it back. ``history`` begins with epoch 0, the untrained
    model.
    """

    outputs: Outputs
    history: tuple[EpochRecord, ...]
    best_epoch: int
    iou_before: float
    iou_after: float
    validation_split: str
