"""How a loss reads its truth: as the share of each class in each pixel, with void pixels left out."""

from dataclasses import dataclass
from typing import Any

from keras import ops

from training.errors import ModelShapeError
from training.metrics.confusion import VOID

#: Probabilities are kept this far from 0 and 1 before their logarithm: Keras' own epsilon, and about the
#: distance of 1 to the float32 below it.
EPSILON = 1e-7


@dataclass(frozen=True)
class Target:
    """A batch as all losses use it, float32."""

    truth: Any  #: (B, H, W, classes) in [0, 1]: soft for one class, one-hot for more; 0 where void
    probability: Any  #: (B, H, W, classes) in [0, 1]; 0 where void
    known: Any  #: (B, H, W, 1): 1, or 0 where void

    @property
    def pixels(self) -> Any:
        """How many pixels of each example count, at least 1: (B,)."""
        return ops.maximum(ops.sum(self.known, axis=(1, 2, 3)), 1.0)


def read_target(truth: Any, probability: Any, classes: int) -> Target:
    """Read a batch. Raises `ModelShapeError` where the two are not of the shapes that the package states."""
    if isinstance(probability, list | tuple):
        raise ModelShapeError(
            f"the model has {len(probability)} outputs: wrap the loss in training.losses.sum_over_outputs"
        )
    sizes = tuple(truth.shape), tuple(probability.shape)
    if any(len(size) != 4 for size in sizes) or not _fit(*sizes, classes):
        raise ModelShapeError(
            f"for classes={classes} the truth is (B, H, W, 1) and the probability (B, H, W, {classes}), not "
            f"{sizes[0]} and {sizes[1]}"
        )
    probability = ops.cast(probability, "float32")
    if classes == 1:
        shares = ops.cast(truth, "float32")
        return Target(shares, probability, ops.ones_like(shares))
    numbers = ops.cast(truth, "int32")
    known = ops.cast(numbers != VOID, "float32")
    # 255 is no class: its row of the comparison is 0 throughout, whatever the backend's one_hot does with it
    shares = ops.cast(numbers == ops.arange(classes, dtype="int32"), "float32")
    return Target(shares, probability * known, known)


def _fit(truth: tuple[int | None, ...], probability: tuple[int | None, ...], classes: int) -> bool:
    """Whether two shapes are of one batch of photos; a graph may not know some sizes yet."""
    pairs = zip(truth[:3], probability[:3], strict=True)
    return (truth[3], probability[3]) == (1, classes) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def weighted_mean(values: Any, present: Any, class_weights: tuple[float, ...] | None) -> Any:
    """The mean over the classes of each example: (B, classes) → (B,).

    ``present`` (B, classes) is 1 for classes that count, else 0. An example where none does gives 0.
    """
    weights = present if class_weights is None else present * ops.convert_to_tensor(class_weights, "float32")
    total = ops.sum(weights, axis=-1)
    return ops.sum(weights * values, axis=-1) / ops.where(total > 0, total, ops.ones_like(total))
