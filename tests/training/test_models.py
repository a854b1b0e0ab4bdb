"""What holds for every model: its shapes, saving and loading, one training; and what is refused before it is made."""

import importlib.util
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from tests.support import ROOT
from tests.training.model_cases import CASES
from tests.training.references.compare import as_list
from training.errors import ModelOptionsError, ModelShapeError, UnknownModelError
from training.models import check_model, create_model, model_names, model_options

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

#: A variant of another model is trained and saved only where the slower tests run as well.
TRAINED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            case.like is not None and importlib.util.find_spec("torch") is None,
            reason=f"PyTorch is not installed; {case.like} runs the same code here",
        ),
    )
    for name, case in sorted(CASES.items())
]
BUILDS = [(name, index) for name, case in CASES.items() for index in range(len(case.sizes))]


@cache
def built(name, index=0, seed=1):
    """A fresh model of the case, made once: tests leave its weights as they are."""
    import keras

    case = CASES[name]
    keras.utils.set_random_seed(seed)
    model = create_model(name, (*case.sizes[index], case.channels), 3 if index else 1, **case.options)
    for number, layer in enumerate(case.undrawn):
        kernel = model.get_layer(layer).kernel
        most = 1 / kernel.shape[0] / kernel.shape[2]
        kernel.assign(np.random.default_rng([seed, number]).uniform(0, most, kernel.shape))
    return model


def photos_for(name, index=0, count=2):
    case = CASES[name]
    return np.random.default_rng(0).integers(0, 256, (count, *case.sizes[index], case.channels)).astype(np.float32)


def predict(model, photos):
    from keras import ops

    return [ops.convert_to_numpy(output) for output in as_list(model(photos, training=False))]


def test_every_model_is_tested_here():
    assert sorted(CASES) == model_names()


@pytest.mark.parametrize(("name", "index"), BUILDS)
def test_outputs_have_the_size_of_the_photo_and_are_probabilities(name, index):
    model, case = built(name, index), CASES[name]
    classes = 3 if index else 1
    outputs = predict(model, photos_for(name, index))
    assert model.name == name
    assert [layer.name for layer in model.layers if layer.name == "photo"] == ["photo"]
    assert model.output_names[0] == "mask"
    assert len(outputs) == case.outputs
    for output in outputs:
        assert output.shape == (2, *case.sizes[index], classes)
        assert output.dtype == np.float32
        assert output.min() >= 0
        assert output.max() <= 1
        assert output.std() > 1e-6, "the mask does not depend on the photo"
        if classes > 1:
            np.testing.assert_allclose(output.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_weights(name):
    first, again = built(name).get_weights(), built.__wrapped__(name).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kernels = [value.ravel()[:8].tobytes() for value in first if value.ndim == 4 and value.size >= 8]
    assert len(set(kernels)) == len(kernels), "two layers have drawn the same numbers"


@pytest.mark.parametrize("name", TRAINED)
def test_learns_from_one_batch(name):
    """A few steps lower the loss and move every weight, and the averages of normalization.

    But for biases: before a normalization they have no gradient.
    """
    import keras

    case, photos = CASES[name], photos_for(name)
    truth = (photos[..., :1] > 127).astype(np.float32)
    model = built(name)
    before = model.get_weights()
    try:
        model.compile(
            keras.optimizers.SGD(case.learning_rate),
            loss=["binary_crossentropy"] * case.outputs if case.outputs > 1 else "binary_crossentropy",
            run_eagerly=True,  # tracing takes longer than these steps
        )
        targets = [truth] * case.outputs if case.outputs > 1 else truth
        losses = [float(np.ravel(model.train_on_batch(photos, targets))[0]) for _ in range(3)]
        after = model.get_weights()
    finally:
        model.set_weights(before)
    assert losses[-1] < losses[0]
    kept = {variable.path for layer in model.layers if not layer.trainable for variable in layer.weights}
    still = [
        variable.path
        for variable, old, new in zip(model.weights, before, after, strict=True)
        if np.array_equal(old, new) and variable.name != "bias" and variable.path not in kept
    ]
    assert not still, "these have not changed"


@pytest.mark.parametrize("name", ["unet", "tiramisu-56"])
def test_mixed_precision_changes_little_and_the_probabilities_stay_float32(name):
    import keras

    photos, precise = photos_for(name), built(name)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = built.__wrapped__(name)
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(precise.get_weights())
    (masks,) = predict(model, photos)
    assert model.get_layer("classify").compute_dtype == "bfloat16"
    assert masks.dtype == np.float32
    np.testing.assert_allclose(masks, predict(precise, photos)[0], atol=0.05)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The models saved, then loaded and run by one process that can import nothing of ours."""
    folder = tmp_path_factory.mktemp("models")
    for name in [param.values[0] for param in TRAINED if not param.marks[0].args[0]]:
        built(name).save(folder / f"{name}.keras")
        np.save(folder / f"{name}.photos.npy", photos_for(name))
    script = (
        "import sys, pathlib, keras, numpy\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.keras'):\n"
        "    model = keras.models.load_model(path)\n"
        "    masks = model(numpy.load(path.with_suffix('.photos.npy')), training=False)\n"
        "    masks = masks[0] if isinstance(masks, list) else masks\n"
        "    numpy.save(path.with_suffix('.masks.npy'), keras.ops.convert_to_numpy(masks))\n"
        "assert not any(name.split('.')[0] == 'training' for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, cwd=folder)
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_saves_and_loads_in_a_process_that_knows_only_keras(name, saved):
    masks = np.load(saved / f"{name}.masks.npy")
    np.testing.assert_allclose(masks, predict(built(name), photos_for(name))[0], atol=1e-6)


def test_every_model_and_option_is_documented():
    page = (ROOT / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    assert {name: re.findall(r"\w+", options) for name, options in rows} == {
        name: list(model_options(name)) for name in model_names()
    }


def test_unknown_model_names_those_there_are():
    with pytest.raises(UnknownModelError, match=r"no model 'unett'; there are: .*tiramisu-103.*u2net-lite, unet"):
        create_model("unett", (64, 64, 3))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"filters": 3}, "no option filters; it has: base_filters, depth, upsampling"),
        ("unet", {"base_filters": 0}, "base_filters"),
        ("unet", {"base_filters": 1.5}, "base_filters"),
        ("unet", {"depth": 9}, "from 1 to 8"),
        ("unet", {"depth": True}, "from 1 to 8"),
        ("unet", {"base_filters": 1024, "depth": 4}, "lower one"),
        ("unet", {"upsampling": "nearest"}, "'transposed' or 'bilinear', not 'nearest'"),
        ("tiramisu-56", {"growth_rate": 0}, "growth_rate is a whole number of at least 1"),
        ("tiramisu-56", {"layers": [4, 4]}, "odd number of blocks"),
        ("tiramisu-67", {"layers": [4, 0, 4]}, "each a whole number of at least 1"),
        ("tiramisu-103", {"layers": 4}, "odd number of blocks"),
        ("tiramisu-103", {"dropout": 1}, "less than 1"),
        ("u2net", {"width": 0}, "above 0"),
        ("u2net-lite", {"width": "1"}, "above 0"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ModelOptionsError, match=message):
        model_options(name, options)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "message"),
    [
        ("unet", (64, 64), 1, "height, width, channels"),
        ("unet", (64, 64.0, 3), 1, "height, width, channels"),
        ("unet", (None, 64, 3), 1, "height, width, channels"),
        ("unet", (64, 64, 3), 0, "classes"),
        ("unet", (15, 64, 3), 1, "at least 16×16 pixels, not 15×64.*depth 3 or less"),
        ("tiramisu-56", (64, 31, 3), 1, "tiramisu-56 halves a photo 5 times .* at least 32×32 pixels, not 64×31"),
        ("u2net", (64, 64, 1), 1, "u2net takes photos of red, green and blue"),
    ],
)
def test_shapes_that_cannot_be_are_refused(name, shape, classes, message):
    with pytest.raises(ModelShapeError, match=message):
        check_model(name, shape, classes)


def test_options_are_completed_with_defaults():
    assert model_options("unet", {"depth": 3}) == {"base_filters": 16, "depth": 3, "upsampling": "transposed"}
    assert model_options("tiramisu-56")["layers"] == (4,) * 11
    assert model_options("tiramisu-56", {"layers": [1, 2, 3]})["layers"] == (1, 2, 3)
