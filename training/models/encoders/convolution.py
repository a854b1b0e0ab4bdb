"""Convolution, batch normalization and pooling with the padding and the constants of PyTorch.

TensorFlow's 'same' padding puts the odd pixel at the end where a stride is above 1; PyTorch pads both sides alike. The
two agree for stride 1, where 'same' costs no copy.
"""

from typing import Any

#: torch.nn.BatchNorm2d; its momentum 0.1 is the weight of the new value, Keras' is that of the old one.
EPSILON = 1e-5
MOMENTUM = 0.9


def convolution(
    x: Any, filters: int, kernel: int, name: str, *, stride: int = 1, dilation: int = 1, initializer: Any = "he_normal"
) -> Any:
    """A convolution without bias, padded by dilation · (kernel − 1) / 2 on each side."""
    from keras import layers

    x, padding = _padded(x, kernel, stride, dilation, name)
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )(x)


def depthwise(x: Any, kernel: int, name: str, *, stride: int = 1, dilation: int = 1, initializer: Any) -> Any:
    """As `convolution`, each channel by itself."""
    from keras import layers

    x, padding = _padded(x, kernel, stride, dilation, name)
    return layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        depthwise_initializer=initializer,
        name=name,
    )(x)


def normalization(x: Any, name: str, *, gamma: str = "ones") -> Any:
    """Batch normalization (Ioffe and Szegedy 2015) with PyTorch's constants."""
    from keras import layers

    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, gamma_initializer=gamma, name=name)(x)


def max_pooling_after_relu(x: Any, name: str, *, padding: int = 0, ceil: bool = False) -> Any:
    """3×3 max-pooling with stride 2 of ``x`` ≥ 0: there, padding by zeros is padding by −∞.

    ``ceil`` lets the last window hang over the end by a pixel, as PyTorch's ``ceil_mode`` does.
    """
    from keras import layers

    over = [(ceil and (side + 2 * padding - 3) % 2) for side in x.shape[1:3]]
    if padding or any(over):
        around = tuple((padding, padding + int(one)) for one in over)
        x = layers.ZeroPadding2D(around, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name=name)(x)


def fan_out(groups: int = 1) -> Any:
    """He et al. 2015 for the backward pass, as torchvision draws the kernels of ResNet and MobileNetV2."""
    from keras import initializers

    # PyTorch takes a depthwise kernel's fan-out for kernel² (its group has one output), Keras for kernel² · channels.
    return initializers.VarianceScaling(2.0 * groups, mode="fan_out", distribution="untruncated_normal")


def _padded(x: Any, kernel: int, stride: int, dilation: int, name: str) -> tuple[Any, str]:
    """What to convolve, and the padding that is left to do."""
    from keras import layers

    if stride == 1:
        return x, "same"
    around = dilation * (kernel - 1) // 2
    return (layers.ZeroPadding2D(around, name=f"{name}_pad")(x) if around else x), "valid"
