"""The residual U-block of U²-Net (Qin et al. 2020, section 3.1): a small U-Net added to what went into it.

RSU-L has L levels: the first L − 1 halve the size between them, the L-th sees the size of the one before it, dilated
by 2. RSU-4F keeps the size and dilates by 1, 2, 4, 8 instead, for features that are too small to be halved.
"""

from dataclasses import dataclass
from typing import Any

from training.models.blocks.initial import torch_bias, torch_kernel
from training.models.blocks.resizing import resize_bilinear


@dataclass(frozen=True)
class ResidualUBlock:
    """``levels`` L ≥ 2, ``middle`` features inside, ``filters`` out of it; ``dilated`` for RSU-4F's kind."""

    levels: int
    middle: int
    filters: int
    dilated: bool = False

    def __call__(self, x: Any, name: str) -> Any:
        """(B, h, w, c) → (B, h, w, filters); any size of at least 1×1."""
        from keras import layers

        entry = conv_norm_relu(x, self.filters, 1, f"{name}_in")
        x = entry
        skips = []
        for level in range(1, self.levels):
            if level > 1 and not self.dilated:
                x = halve(x, f"{name}_down{level - 1}_pool")
            x = conv_norm_relu(x, self.middle, self._dilation(level), f"{name}_down{level}")
            skips.append(x)
        x = conv_norm_relu(x, self.middle, self._dilation(self.levels), f"{name}_down{self.levels}")
        for level in range(self.levels - 1, 0, -1):
            skip = skips[level - 1]
            x = resize_bilinear(x, skip.shape[1:3], f"{name}_up{level}_resize")
            x = layers.Concatenate(name=f"{name}_up{level}_skip")([x, skip])
            filters = self.filters if level == 1 else self.middle
            x = conv_norm_relu(x, filters, self._dilation(level), f"{name}_up{level}")
        return layers.Add(name=f"{name}_add")([x, entry])

    def _dilation(self, level: int) -> int:
        if self.dilated:
            return 1 << (level - 1)
        return 2 if level == self.levels else 1


def conv_norm_relu(x: Any, filters: int, dilation: int, name: str) -> Any:
    """3×3 convolution with a bias, batch normalization, ReLU: (B, h, w, c) → (B, h, w, filters)."""
    from keras import layers

    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        dilation_rate=dilation,
        kernel_initializer=torch_kernel(),
        bias_initializer=torch_bias(9 * x.shape[-1]),
        name=f"{name}_conv",
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def halve(x: Any, name: str) -> Any:
    """2×2 max-pooling that keeps the last row of an odd side: (B, h, w, c) → (B, ⌈h/2⌉, ⌈w/2⌉, c)."""
    from keras import layers

    return layers.MaxPooling2D(2, padding="same", name=name)(x)
