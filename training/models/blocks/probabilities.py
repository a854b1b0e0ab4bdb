"""The last layer of a model: from scores to probabilities."""

from typing import Any


def probabilities(scores: Any, classes: int, name: str = "mask") -> Any:
    """Sigmoid for one class, else softmax: (B, H, W, classes) → float32 in [0, 1].

    float32 also where mixed precision computes the rest in less: a loss near 0 or 1 needs the digits.
    """
    from keras import layers

    return layers.Activation("sigmoid" if classes == 1 else "softmax", dtype="float32", name=name)(scores)
