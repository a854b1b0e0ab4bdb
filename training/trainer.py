"""The compiled twin of a model: the same layers and weights, with loss, metric and optimizer.

The model itself stays free of them, so that what is saved of it loads anywhere. The twin is driven batch by batch: all
backends can do that, and it lets a training stop and go on between any two batches.
"""

from typing import Any

import keras
from keras import ops

from training.losses import create_loss, sum_over_outputs
from training.metrics.online import create_metric
from training.options import FitOptions


class Trainer(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Steps over batches; ``loss`` in what they return is of that batch alone, ``iou`` of all since `begin_epoch`.

    A model with several outputs (deep supervision) is trained on the sum over all, and measured on the first, which is
    the fused one. Batches are of bytes (`training.batches.Batch`), of which the device makes floats, or of floats: one
    subject's truth then in [0, 1].
    """

    def step(self, x: Any, y: Any) -> dict[str, float]:
        """Learn from a batch."""
        told = self.train_on_batch(*_as_bytes(x, y), return_dict=True)
        return {name: float(value) for name, value in told.items()}

    def measure(self, x: Any, y: Any) -> dict[str, float]:
        """Measure a batch, learn nothing."""
        told = self.test_on_batch(*_as_bytes(x, y), return_dict=True)
        return {name: float(value) for name, value in told.items()}

    def begin_epoch(self) -> None:
        """Count the IoU from here on."""
        self.iou.reset_state()

    def reset_metrics(self) -> None:
        """Keras calls it before each batch; the IoU runs over the epoch."""
        self._loss_tracker.reset_state()

    def set_objective(self, objective: Any, iou: Any, classes: int) -> None:
        """``objective(truth, outputs)`` gives (B,) for the list of outputs; ``iou`` is a metric of the first."""
        self.objective, self.iou, self._of_levels = objective, iou, classes == 1

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002  # Keras' signature
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """The mean over the batch, and what layers add (their regularisation)."""
        del x
        loss = ops.mean(self.objective(self._truth(y), outputs_of(y_pred)))
        for added in self.losses:
            loss = loss + added
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """The loss of the batch, the IoU so far."""
        self.iou.update_state(self._truth(y), outputs_of(y_pred)[0])
        return {"loss": self._loss_tracker.result(), "iou": self.iou.result()}

    def _truth(self, y: Any) -> Any:
        """What losses and metrics take: of one subject's levels 0 … 255 the shares, float32 in [0, 1]."""
        if not self._of_levels or keras.backend.standardize_dtype(y.dtype) != "uint8":
            return y
        return ops.cast(y, "float32") / 255.0


def _as_bytes(x: Any, y: Any) -> tuple[Any, Any]:
    """The batch in the form whose bytes Keras leaves alone until they are on the device.

    With torch, it makes floats of arrays before they go there, and of tensors afterwards.
    """
    if keras.backend.backend() == "torch":
        return ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    return x, y


def make_trainer(
    model: Any, options: FitOptions, *, classes: int, weights: tuple[float, ...] | None, optimizer: Any = None
) -> Trainer:
    """A twin that shares the model's weights; without ``optimizer`` it only measures."""
    loss = create_loss(options.loss_for(classes), classes=classes, class_weights=weights, **options.loss_options)
    summed = sum_over_outputs(loss)
    trainer = Trainer(inputs=model.inputs[0], outputs=list(model.outputs), name="trainer")
    trainer.set_objective(summed, create_metric(classes), classes)
    trainer.compile(optimizer=optimizer)
    if optimizer is not None:
        trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def outputs_of(predicted: Any) -> list[Any]:
    """The outputs of a model as a list, of one where it has one."""
    return list(predicted) if isinstance(predicted, list | tuple) else [predicted]
