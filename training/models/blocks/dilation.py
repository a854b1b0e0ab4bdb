"""Dilated convolutions by the kernel that TensorFlow has for them.

Keras hands them to ``tf.nn.convolution``, which cuts the features into dilation² interleaved parts, pads these and
convolves each: with a large dilation many times the work of ``tf.nn.conv2d``, whose kernel knows dilation (at 20×20
features dilated by 18 ten times and more). What comes out differs by rounding. On JAX and torch there is nothing to do.
"""

from functools import cache, partial
from typing import Any


def use_dilated_kernels(model: Any) -> Any:
    """Have TensorFlow compute the dilated convolutions of a ``keras.Model`` so, where it can; returns the model.

    It is how the model is computed, not what it is: nothing of it is saved, and no layer is another. Depthwise ones,
    for which there is no such kernel, and layers of models inside the model stay Keras'.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return model
    for layer in model.layers:
        if (
            isinstance(layer, keras.layers.Conv2D)
            and max(layer.dilation_rate) > 1
            and (layer.groups, layer.data_format) == (1, "channels_last")  # all that kernels on CPUs know
            and _learns_dilated(layer.compute_dtype)
        ):
            layer.convolution_op = partial(_convolve, layer)
    return model


def _convolve(layer: Any, features: Any, kernel: Any) -> Any:
    """What ``layer.convolution_op`` is to compute: (B, h, w, c) → (B, h', w', filters), without the bias."""
    import tensorflow as tf
    from keras import ops

    return tf.nn.conv2d(
        ops.convert_to_tensor(features),
        ops.convert_to_tensor(kernel),
        strides=layer.strides,
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
    )


@cache
def _learns_dilated(dtype: str) -> bool:
    """Whether the device has gradients of dilated convolutions: on a CPU only oneDNN's kernels do, for some types."""
    import tensorflow as tf

    features, kernel = tf.ones((1, 3, 3, 1), dtype), tf.ones((3, 3, 1, 1), dtype)
    try:
        with tf.GradientTape() as tape:
            tape.watch([features, kernel])
            convolved = tf.nn.conv2d(features, kernel, strides=1, padding="SAME", dilations=2)
        tape.gradient(convolved, [features, kernel])
    except tf.errors.OpError:  # whichever: Keras' own way remains
        return False
    return True
