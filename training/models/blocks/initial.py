"""Initial weights as PyTorch draws them where a reference does not say otherwise."""

import math
from typing import Any


def torch_kernel() -> Any:
    """Uniform in ±1/√fan_in: He et al. 2015 with a negative slope of √5, torch's default for convolutions.

    A new initializer each time: one that is used twice gives the same numbers twice.
    """
    from keras import initializers

    return initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")


def torch_bias(fan_in: int) -> Any:
    """Uniform in ±1/√fan_in, where ``fan_in`` is kernel height × width × input channels."""
    from keras import initializers

    bound = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-bound, bound)
