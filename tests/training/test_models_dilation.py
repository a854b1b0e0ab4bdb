"""Dilated convolutions by TensorFlow's own kernel: the same numbers, and a checkpoint of Keras' own layers."""

import numpy as np
import pytest

from training.checkpoint import load_checkpoint, save_checkpoint
from training.models import create_model
from training.models.blocks import dilation

keras = pytest.importorskip("keras", reason="Keras is not installed")
if keras.backend.backend() != "tensorflow":
    pytest.skip("JAX and torch need no other kernel", allow_module_level=True)
if not dilation._learns_dilated():
    pytest.skip("this TensorFlow has no gradients of dilated convolutions", allow_module_level=True)

# Keras 3.15 asks TensorFlow's variables for arrays in a way that numpy 2.4 is to deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def with_kernels(model):
    """The layers that TensorFlow's kernel computes."""
    return [layer.name for layer in model.layers if isinstance(vars(layer).get("convolution_op"), dilation.partial)]


def test_the_dilated_layers_have_it_and_no_others():
    assert with_kernels(create_model("u2net-lite", (32, 32, 3)))
    resnet = create_model("deeplab-v3", (32, 32, 3), encoder="resnet-50")
    assert with_kernels(resnet) == [
        *("layer4_1_conv2", "layer4_2_conv2"),
        *(f"classifier_0_convs_{branch}_0" for branch in (1, 2, 3)),
    ]
    assert with_kernels(create_model("unet", (32, 32, 3))) == []


@pytest.mark.parametrize("size", [(20, 20), (7, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("rate", [2, 18])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_outputs_and_gradients_are_those_of_keras(size, rate, padding):
    import tensorflow as tf

    if padding == "valid":
        size = tuple(side + 2 * rate for side in size)
    random = np.random.default_rng(0)
    features = tf.constant(random.standard_normal((2, *size, 8)), tf.float32)
    layer = keras.layers.Conv2D(5, 3, dilation_rate=rate, padding=padding)
    photo = keras.Input((*size, 8))
    model = keras.Model(photo, layer(photo))
    weight = tf.constant(random.standard_normal((2, *model.output_shape[1:])), tf.float32)

    def computed():
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = model(features)
            loss = tf.reduce_sum(output * weight)
        return [output, *tape.gradient(loss, [features, layer.kernel.value, layer.bias.value])]

    expected = computed()
    assert with_kernels(dilation.use_dilated_kernels(model)) == [layer.name]
    for ours, theirs in zip(computed(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_of_layers_that_keras_knows_and_gets_it_back(tmp_path):
    model = create_model("deeplab-v3", (32, 32, 3))
    save_checkpoint(model, tmp_path / "best.keras")
    by_keras = keras.models.load_model(tmp_path / "best.keras", compile=False)
    by_us = load_checkpoint(tmp_path / "best.keras")
    assert with_kernels(by_keras) == []
    assert with_kernels(by_us) == with_kernels(model)
    photos = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    expected = by_keras.predict_on_batch(photos)
    for same in (model, by_us):
        np.testing.assert_allclose(same.predict_on_batch(photos), expected, atol=1e-5)


def test_where_there_is_no_gradient_keras_own_stays(monkeypatch):
    monkeypatch.setattr(dilation, "_learns_dilated", lambda: False)
    assert with_kernels(create_model("deeplab-v3", (32, 32, 3))) == []


def test_bfloat16_is_computed_as_such():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = keras.layers.Conv2D(2, 3, dilation_rate=2, padding="same")
        photo = keras.Input((8, 8, 3))
        model = dilation.use_dilated_kernels(keras.Model(photo, layer(photo)))
    finally:
        keras.config.set_dtype_policy(before)
    assert model(np.ones((1, 8, 8, 3), np.float32)).dtype == "bfloat16"
