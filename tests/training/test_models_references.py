"""The same weights, the same masks: ours against independent ones in PyTorch, and against the published counts."""

import numpy as np
import pytest

from tests.training.references.compare import (
    OUTPUTS,
    SMALL,
    WHOLE,
    as_list,
    random_photos,
    reference_of,
    reference_outputs,
    set_random_weights,
)
from training.models import create_model, model_family

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def outputs_of_ours(comparison, size):
    from keras import ops

    model = create_model(comparison.name, (*size, comparison.channels), comparison.classes, **comparison.options)
    torch_names = model_family(comparison.name).torch_names
    set_random_weights(model, torch_names([layer.name for layer in model.layers]) if torch_names else None)
    photos = random_photos(size, comparison.channels)
    return [ops.convert_to_numpy(output) for output in as_list(model(photos, training=False))]


def require_equal(ours, reference):
    assert len(ours) == len(reference)
    for mine, theirs in zip(ours, reference, strict=True):
        assert theirs.std() > 0.01, "an output without contrast shows nothing"
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("comparison", "size"), [(each, size) for each in SMALL for size in each.sizes], ids=lambda value: str(value)
)
def test_gives_what_the_reference_has_given(comparison, size):
    with np.load(OUTPUTS) as kept:
        names = sorted(key for key in kept if key.startswith(f"{comparison.key(size, 0)[:-1]}"))
        reference = [kept[name] for name in names]
    require_equal(outputs_of_ours(comparison, size), reference)


@pytest.mark.parametrize(
    ("comparison", "size"),
    [(each, size) for each in (*SMALL, *WHOLE) for size in each.sizes],
    ids=lambda value: str(value),
)
def test_gives_what_the_reference_gives(comparison, size):
    pytest.importorskip("torch", reason="the references are in PyTorch")
    reference = reference_outputs(reference_of(comparison), random_photos(size, comparison.channels))
    require_equal(outputs_of_ours(comparison, size), reference)


@pytest.mark.parametrize(
    ("name", "classes", "options", "trainable", "total"),
    [
        # milesial/Pytorch-UNet, transposed and bilinear.
        ("unet", 1, {"base_filters": 64}, 31_037_633, 31_049_409),
        ("unet", 1, {"base_filters": 64, "upsampling": "bilinear"}, 17_262_977, 17_271_809),
        # The paper's table: 1.5, 3.5 and 9.4 million. The first is 1.4 by the authors' code as by ours.
        ("tiramisu-56", 11, {}, 1_376_795, 1_397_963),
        ("tiramisu-67", 11, {}, 3_463_243, 3_502_923),
        ("tiramisu-103", 11, {}, 9_322_091, 9_425_163),
        # xuebinqin/U-2-Net: 176.3 and 4.7 MB on disk.
        ("u2net", 1, {}, 44_009_869, 44_038_669),
        ("u2net-lite", 1, {}, 1_131_181, 1_136_877),
    ],
)
def test_has_as_many_weights_as_published(name, classes, options, trainable, total):
    """``total`` counts the moving averages of batch normalization, which are saved but not learned."""
    model = create_model(name, (32, 32, 3), classes, **options)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_weights) == trainable
    assert model.count_params() == total
