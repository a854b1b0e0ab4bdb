"""Dilated convolutions by TensorFlow's own kernel: the same numbers, and a checkpoint of Keras' own layers."""

import numpy as np
import pytest

from training.checkpoint import load_checkpoint, save_checkpoint
from training.models import create_model
from training.models.blocks import dilation

keras = pytest.importorskip("keras", reason="Keras is not installed")
if keras.backend.backend() != "tensorflow":
    pytest.skip("JAX and torch need no other kernel", allow_module_level=True)
needs_gradients = pytest.mark.skipif(
    not dilation._learns_dilated("float32"), reason="this TensorFlow has no gradients of dilated convolutions"
)
# Keras 3.15 asks TensorFlow's variables for arrays in a way that numpy 2.4 is to deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def with_kernels(model):
    """The layers that TensorFlow's kernel computes."""
    return [layer.name for layer in model.layers if isinstance(vars(layer).get("convolution_op"), dilation.partial)]


@needs_gradients
def test_the_dilated_layers_have_it_and_no_others():
    resnet = create_model("deeplab-v3", (32, 32, 3), encoder="resnet-50")
    assert with_kernels(resnet) == [
        *("layer4_1_conv2", "layer4_2_conv2"),
        *(f"classifier_0_convs_{branch}_0" for branch in (1, 2, 3)),
    ]
    assert with_kernels(create_model("unet", (32, 32, 3))) == []


@needs_gradients
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

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch(features)
            output = model(features)
            loss = tf.reduce_sum(output * weight)
        return [output, *tape.gradient(loss, [features, layer.kernel.value, layer.bias.value])]

    expected = compute()
    assert with_kernels(dilation.use_dilated_kernels(model)) == [layer.name]
    for computed in (compute.python_function(), tf.function(compute.python_function)()):  # eagerly, and as a graph
        for ours, theirs in zip(computed, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_gradients
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
    monkeypatch.setattr(dilation, "_learns_dilated", lambda _: False)
    assert with_kernels(create_model("deeplab-v3", (32, 32, 3))) == []


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_every_precision_learns_by_one_or_the_other(policy):
    """Which types a CPU has the kernel for depends on it; a step has to be possible in any."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = keras.layers.Conv2D(1, 3, dilation_rate=2, padding="same")
        photo = keras.Input((8, 8, 3))
        model = dilation.use_dilated_kernels(keras.Model(photo, layer(photo)))
    finally:
        keras.config.set_dtype_policy(before)
    assert bool(with_kernels(model)) is dilation._learns_dilated(layer.compute_dtype)
    photos = np.ones((1, 8, 8, 3), np.float32)
    assert model(photos).dtype == layer.compute_dtype
    kernel = layer.get_weights()[0]
    model.compile(keras.optimizers.SGD(0.1), loss="mse", auto_scale_loss=False)  # scaling begins by skipped steps
    assert np.isfinite(model.train_on_batch(photos, np.ones((1, 8, 8, 1), np.float32)))
    assert not np.array_equal(layer.get_weights()[0], kernel)
