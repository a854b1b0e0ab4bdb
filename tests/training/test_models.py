"""Each model: what it refuses, its shapes, its number of weights, saving and loading, one training."""

import subprocess
import sys

import numpy as np
import pytest

from training.errors import ModelOptionsError, ModelShapeError, UnknownModelError
from training.models import check_model, create_model, model_names, model_options, unet

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SMALL = {"unet": {"base_filters": 4, "depth": 2}}


def test_every_model_has_a_small_variant_here():
    assert sorted(SMALL) == model_names()


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("size", [(32, 48), (33, 46), (29, 31)])
@pytest.mark.parametrize("classes", [1, 3])
def test_output_has_the_size_of_the_photo_and_is_a_probability(name, size, classes):
    model = create_model(name, (*size, 3), classes, **SMALL[name])
    photos = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.float32)
    output = np.asarray(model(photos, training=False))
    assert output.shape == (2, *size, classes)
    assert output.dtype == np.float32
    assert output.min() >= 0
    assert output.max() <= 1
    if classes > 1:
        np.testing.assert_allclose(output.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_saves_and_loads_in_a_process_that_knows_only_keras(name, tmp_path):
    model = create_model(name, (33, 30, 3), 1, **SMALL[name])
    photos = np.random.default_rng(0).integers(0, 256, (2, 33, 30, 3)).astype(np.float32)
    np.save(tmp_path / "photos.npy", photos)
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras, numpy; folder = sys.argv[1];"
        "model = keras.models.load_model(folder + '/model.keras');"
        "photos = numpy.load(folder + '/photos.npy');"
        "numpy.save(folder + '/masks.npy', model(photos, training=False));"
        "assert not any(name.split('.')[0] == 'training' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy"), np.asarray(model(photos, training=False)))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_same_seed_gives_the_same_weights(name):
    import keras

    def weights(seed):
        keras.utils.set_random_seed(seed)
        return create_model(name, (32, 32, 3), 1, **SMALL[name]).get_weights()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def parameter_count(channels, classes, options):
    """How many numbers the model has, batch normalization's moving averages included."""

    def block(inputs, filters):  # two 3×3 convolutions without bias, 4 numbers of normalization each
        return 9 * inputs * filters + 9 * filters * filters + 2 * 4 * filters

    widths = [options.base_filters << level for level in range(options.depth + 1)]
    down = sum(block(inputs, filters) for inputs, filters in zip([channels, *widths], widths, strict=False))
    up = sum((4 * 2 * width + 1) * width + block(2 * width, width) for width in widths[:-1])
    return down + up + (widths[0] + 1) * classes


@pytest.mark.parametrize(
    ("channels", "classes", "options"),
    [(3, 1, {}), (4, 5, {"base_filters": 6, "depth": 3}), (3, 2, {"depth": 1})],
)
def test_unet_has_as_many_weights_as_its_layers_add_up_to(channels, classes, options):
    model = create_model("unet", (48, 48, channels), classes, **options)
    assert model.count_params() == parameter_count(channels, classes, unet.UNetOptions(**options))


def test_unet_of_the_papers_width_has_as_many_weights_as_the_well_known_one_in_torch():
    # milesial/Pytorch-UNet, 3 channels, 1 class, transposed convolutions: 31,037,633 trainable. It has batch
    # normalization too; the two moving averages of each filter do not count as trainable.
    filters = 2 * 2 * (64 + 128 + 256 + 512) + 2 * 1024
    assert parameter_count(3, 1, unet.UNetOptions(base_filters=64)) - 2 * filters == 31_037_633


def test_unknown_model_names_those_there_are():
    with pytest.raises(UnknownModelError, match="no model 'unett'; there are: unet"):
        create_model("unett", (64, 64, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 3}, "no option filters; it has: base_filters, depth"),
        ({"base_filters": 0}, "base_filters"),
        ({"base_filters": 1.5}, "base_filters"),
        ({"depth": 9}, "from 1 to 8"),
        ({"depth": True}, "from 1 to 8"),
        ({"base_filters": 1024, "depth": 4}, "lower one"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ModelOptionsError, match=message):
        model_options("unet", options)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((64, 64), 1, "height, width, channels"),
        ((64, 64.0, 3), 1, "height, width, channels"),
        ((None, 64, 3), 1, "height, width, channels"),
        ((64, 64, 3), 0, "classes"),
        ((15, 64, 3), 1, "at least 16×16 pixels, not 15×64.*depth 3 or less"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape, classes, message):
    with pytest.raises(ModelShapeError, match=message):
        check_model("unet", shape, classes)


def test_options_are_completed_with_defaults():
    assert model_options("unet", {"depth": 3}) == {"base_filters": 16, "depth": 3}
