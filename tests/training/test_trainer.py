"""Steps over batches, by the compiled twin of a model."""

import keras
import numpy as np
import pytest

from training.losses import create_loss
from training.optimizers import create_optimizer
from training.options import FitOptions
from training.predict import predict_inputs
from training.trainer import make_trainer

# Keras 3.15 asks variables for arrays in a way that numpy 2.4 is to deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


def pixelwise(classes):
    """One convolution, whose weights are the same each time."""
    photo = keras.Input((16, 16, 3))
    convolution = keras.layers.Conv2D(
        classes,
        1,
        activation="sigmoid" if classes == 1 else "softmax",
        kernel_initializer=keras.initializers.GlorotUniform(seed=1),
    )
    return keras.Model(photo, convolution(photo / 255))


@pytest.mark.parametrize("classes", [1, 3])
def test_bytes_are_measured_and_learned_as_the_floats_that_they_are(classes):
    """Each level of a mask of one subject once, and void among class numbers."""
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    levels = np.arange(256) if classes == 1 else np.where(np.arange(256) < 250, np.arange(256) % classes, 255)
    y = levels.astype(np.uint8).reshape(1, 16, 16, 1)
    floats = y / np.float32(255) if classes == 1 else y.astype(np.int32)
    options = FitOptions(loss="ce" if classes > 1 else "bce", learning_rate=0.1)
    results = []
    for photos, masks in ((x, y), (x.astype(np.float32), floats)):
        model = pixelwise(classes)
        optimizer = create_optimizer(options, epoch_steps=1)
        trainer = make_trainer(model, options, classes=classes, weights=None, optimizer=optimizer)
        losses = [trainer.step(photos, masks) for _ in range(3)] + [trainer.measure(photos, masks)]
        predicted = predict_inputs(model, photos, batch_size=1)
        results.append((losses, predicted))
    (losses, predicted), (losses_of_floats, predicted_of_floats) = results
    assert losses[0]["loss"] > losses[-1]["loss"]
    assert [told["iou"] for told in losses] == [told["iou"] for told in losses_of_floats]
    for ours, floats_ in zip(losses, losses_of_floats, strict=True):
        assert ours["loss"] == pytest.approx(floats_["loss"], rel=1e-6)
    np.testing.assert_allclose(predicted, predicted_of_floats, rtol=1e-5)


def test_a_model_of_several_outputs_is_trained_on_their_sum_and_measured_on_the_first():
    photo = keras.Input((4, 4, 3))
    outputs = [
        keras.layers.Conv2D(1, 1, activation="sigmoid", kernel_initializer="ones", bias_initializer=bias)(photo / 255)
        for bias in (keras.initializers.Constant(-9), keras.initializers.Constant(9))
    ]
    model = keras.Model(photo, outputs)
    trainer = make_trainer(model, FitOptions(loss="bce"), classes=1, weights=None)
    x, y = np.zeros((2, 4, 4, 3), np.float32), np.ones((2, 4, 4, 1), np.float32)
    measured = trainer.measure(x, y)
    bce = create_loss("bce")
    expected = sum(keras.ops.convert_to_numpy(bce(y, output)).mean() for output in model(x))
    assert measured == {"loss": pytest.approx(expected, rel=1e-6), "iou": 0.0}
    assert predict_inputs(model, x.astype(np.uint8), batch_size=1).max() < 0.01
