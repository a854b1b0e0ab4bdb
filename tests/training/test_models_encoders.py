"""FCN, DeepLabv3, SharpMask and their encoders: as many weights as published, the same outputs as their references."""

import importlib.util

import numpy as np
import pytest

from tests.training.model_cases import without_values
from tests.training.references import with_encoders
from tests.training.references.compare import random_photos, reference_outputs
from training.errors import ModelOptionsError, ModelShapeError, WeightsError
from training.models import check_model, create_model, model_options
from training.models.torch_weights import load_torch_weights

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: `make test-frameworks` runs these"
)


#: torchvision's second score for training, which we do not have: FCNHead(1024, 21).
AUXILIARY = 9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21


def learned(layers):
    return sum(int(np.prod(weight.shape)) for layer in layers for weight in layer.trainable_weights)


def encoder(build, channels=3, **options):
    """How many weights an encoder learns."""
    import keras

    photo = keras.Input((32, 32, channels))
    with without_values():
        model = keras.Model(photo, list(build(photo, **options).values()))
    return learned(model.layers)


def outputs(model, photos):
    import keras

    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(photos, training=False)))


def test_vgg16_has_the_published_number_of_weights():
    from training.models.encoders.vgg import vgg16

    assert encoder(vgg16) == 14_714_688


def test_mobilenet_v2_has_the_published_number_of_weights():
    from training.models.encoders.mobilenet import mobilenet_v2

    last_features, classifier = 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000
    assert encoder(mobilenet_v2, output_stride=32) == 3_504_872 - last_features - classifier


def test_squeezenet_has_the_published_number_of_weights():
    from training.models.encoders.squeezenet import squeezenet

    assert encoder(squeezenet) == 1_235_496 - (512 * 1000 + 1000)
    assert encoder(squeezenet, channels=5) == 722_496 + 2 * 9 * 64


def test_deeplab_and_its_resnet_have_the_published_number_of_weights():
    with without_values():
        model = create_model("deeplab-v3", (32, 32, 3), 21, encoder="resnet-50")
    assert learned(model.layers) == 42_004_074 - AUXILIARY
    classifier = 2048 * 1000 + 1000
    encoder = [layer for layer in model.layers if not layer.name.startswith("classifier")]
    assert learned(encoder) == 25_557_032 - classifier


@pytest.mark.parametrize(
    ("case", "size"), [(case, size) for case in with_encoders.SMALL for size in case.sizes], ids=str
)
def test_outputs_equal_the_references(case, size):
    model = create_model(case.name, (*size, case.channels), case.classes, **case.options)
    with_encoders.set_random_weights(model)
    expected = np.load(with_encoders.OUTPUTS)[case.key(size)]
    assert expected.std() > 0.02  # else any output would be near
    np.testing.assert_allclose(outputs(model, random_photos(size, case.channels)), expected, rtol=0, atol=1e-4)


@needs_torch
@pytest.mark.parametrize("case", with_encoders.SMALL, ids=str)
def test_the_outputs_kept_are_those_of_the_references(case):
    module, kept = with_encoders.reference_of(case), np.load(with_encoders.OUTPUTS)
    for size in case.sizes:
        (given,) = reference_outputs(module, random_photos(size, case.channels))
        np.testing.assert_allclose(given, kept[case.key(size)], rtol=0, atol=1e-5)


@needs_torch
@pytest.mark.parametrize("case", with_encoders.WHOLE, ids=str)
def test_outputs_as_published_equal_the_references(case):
    module = with_encoders.reference_of(case)
    for size in case.sizes:
        model = create_model(case.name, (*size, case.channels), case.classes, **case.options)
        with_encoders.set_random_weights(model)
        photos = random_photos(size, case.channels)
        (expected,) = reference_outputs(module, photos)
        assert expected.std() > 0.02
        np.testing.assert_allclose(outputs(model, photos), expected, rtol=0, atol=1e-4)
    if case.options.get("encoder") == "resnet-101":
        assert learned(model.layers) == 60_996_202 - AUXILIARY


@needs_torch
@pytest.mark.parametrize("case", [with_encoders.SMALL[2], with_encoders.SMALL[4]], ids=str)
def test_weights_come_over_from_torch(case):
    size = case.sizes[-1]
    model = create_model(case.name, (*size, case.channels), case.classes, **case.options)
    load_torch_weights(model, with_encoders.reference_of(case).state_dict())
    expected = np.load(with_encoders.OUTPUTS)[case.key(size)]
    np.testing.assert_allclose(outputs(model, random_photos(size, case.channels)), expected, rtol=0, atol=1e-4)


def test_weights_from_torch_are_not_known_on_mobilenet():
    with pytest.raises(WeightsError, match="resnet-50 and resnet-101, not mobilenet-v2"):
        load_torch_weights(create_model("deeplab-v3", (32, 32, 3)), {})


@pytest.mark.parametrize("padding", ["paper", "same"])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 96)])
def test_fcn_has_no_opinion_at_first_at_any_size(size, padding):
    options = {"base_filters": 1, "head_filters": 2, "padding": padding}
    for name in ("fcn-32", "fcn-16", "fcn-8"):
        output = outputs(create_model(name, (*size, 3), **options), random_photos(size, 3))
        np.testing.assert_array_equal(output, np.full((1, *size, 1), 0.5))


@pytest.mark.parametrize("name", ["fcn-32", "fcn-16", "fcn-8"])
def test_fcn_with_same_padding_puts_its_scores_where_they_were_seen(name):
    """One that passes brightness on finds bright ground where it is. (That the paper's crops are kept, the outputs of
    the references show.)"""
    model = create_model(name, (128, 160, 3), base_filters=1, head_filters=1, padding="same")
    for layer in model.layers:
        if layer.weights and not layer.name.startswith("upscore"):
            kernel = np.zeros(layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1 / kernel.shape[2]
            layer.kernel.assign(kernel)
    photo = np.zeros((1, 128, 160, 3), np.float32)
    photo[:, 32:96, 64:128] = 255
    found = outputs(model, photo)[0, ..., 0] > 0.5 + 1e-6
    assert found[32:96, 64:128].all()
    where = np.argwhere(found)
    np.testing.assert_array_equal(where.min(axis=0) + where.max(axis=0), (32 + 95, 64 + 127))


def test_fcn_enlarges_bilinearly_at_first():
    model = create_model("fcn-16", (64, 64, 3), 2, base_filters=1, head_filters=2, padding="same")
    between = model.get_layer("upscore2")
    assert between.trainable_weights
    ramp = np.zeros((1, 5, 5, 2), np.float32)
    ramp[..., 0], ramp[..., 1] = np.arange(5)[:, None], np.arange(5)
    enlarged = outputs(lambda x, training: between(x), ramp)[0]
    inside = np.interp(np.arange(3, 9), 2 * np.arange(5) + 1.5, np.arange(5))
    np.testing.assert_allclose(enlarged[3:9, 3:9, 0], np.tile(inside[:, None], 6), atol=1e-6)
    np.testing.assert_allclose(enlarged[3:9, 3:9, 1], np.tile(inside, (6, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fcn-8", {"padding": "valid"}, "'paper' or 'same', not 'valid'"),
        ("fcn-8", {"base_filters": 0}, "base_filters"),
        ("fcn-8", {"head_filters": 1.5}, "head_filters"),
        ("fcn-8", {"dropout": 1}, "dropout"),
        ("deeplab-v3", {"encoder": "resnet-18"}, "there are: mobilenet-v2, resnet-50, resnet-101"),
        ("deeplab-v3", {"output_stride": 32}, "8 or 16"),
        ("deeplab-v3", {"dropout": -0.1}, "dropout"),
        ("sharpmask", {"mask_filters": 40}, "multiple of 16"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ModelOptionsError, match=message):
        model_options(name, options)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fcn-32", (64, 64, 1), "fcn-32 takes photos of red, green and blue"),
        ("deeplab-v3", (64, 64, 2), "deeplab-v3 takes photos of red, green and blue"),
        ("sharpmask", (64, 64, 1), "sharpmask takes photos of red, green and blue"),
        ("sharpmask", (16, 64, 5), "at least 17×17 pixels, not 16×64"),
    ],
)
def test_shapes_that_cannot_be_are_refused(name, shape, message):
    with pytest.raises(ModelShapeError, match=message):
        check_model(name, shape, 1)
