"""Weights from PyTorch: those of the reference give its masks; what does not fit is listed, and changes nothing."""

import importlib.util

import numpy as np
import pytest

from tests.training.references.compare import (
    OUTPUTS,
    SMALL,
    as_list,
    random_photos,
    random_state,
    random_value,
    reference_of,
)
from training.errors import BackendError, WeightsError
from training.models import create_model
from training.models.torch_weights import load_torch_weights, read_torch_weights

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

UNET, SIZE = SMALL[0], (29, 43)


def unet_shapes(base=4, depth=3, channels=3, classes=1):
    """What the state dict of milesial/Pytorch-UNet holds."""
    shapes = {"outc.conv.weight": (classes, base, 1, 1), "outc.conv.bias": (classes,)}

    def double(prefix, inputs, outputs):
        for index, before in ((0, inputs), (3, outputs)):
            shapes[f"{prefix}.{index}.weight"] = (outputs, before, 3, 3)
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}.{index + 1}.{name}"] = (outputs,)
            shapes[f"{prefix}.{index + 1}.num_batches_tracked"] = ()

    widths = [base << level for level in range(depth + 1)]
    double("inc.double_conv", channels, base)
    for level in range(1, depth + 1):
        double(f"down{level}.maxpool_conv.1.double_conv", widths[level - 1], widths[level])
        wide, narrow = widths[depth - level + 1], widths[depth - level]
        shapes[f"up{level}.up.weight"] = (wide, narrow, 2, 2)
        shapes[f"up{level}.up.bias"] = (narrow,)
        double(f"up{level}.conv.double_conv", wide, narrow)
    return shapes


def unet_state(**sizes):
    return {name: random_value(name, shape) for name, shape in unet_shapes(**sizes).items()}


def small_unet(size=SIZE):
    return create_model("unet", (*size, 3), 1, **UNET.options)


def masks(model, photos):
    from keras import ops

    return [ops.convert_to_numpy(output) for output in as_list(model(photos, training=False))]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_of_arrays_gives_the_masks_of_the_reference(prefix):
    model = small_unet()
    load_torch_weights(model, {prefix + name: value for name, value in unet_state().items()})
    with np.load(OUTPUTS) as kept:
        np.testing.assert_allclose(masks(model, random_photos(SIZE, 3))[0], kept[UNET.key(SIZE, 0)], rtol=0, atol=1e-4)


def test_what_does_not_fit_is_listed_and_nothing_is_changed():
    model, state = small_unet((16, 16)), unet_state()
    before = model.get_weights()
    del state["up2.up.bias"], state["inc.double_conv.0.weight"]
    state |= {"head.weight": np.zeros(3), "outc.conv.weight": np.zeros((2, 4, 1, 1))}
    with pytest.raises(WeightsError) as caught:
        load_torch_weights(model, state)
    assert caught.value.missing == ("inc.double_conv.0.weight", "up2.up.bias")
    assert caught.value.unexpected == ("head.weight",)
    assert caught.value.misshaped == ("outc.conv.weight",)
    assert "missing: inc.double_conv.0.weight, up2.up.bias; unexpected: head.weight" in str(caught.value)
    assert "outc.conv.weight (2, 4, 1, 1) instead of (1, 4, 1, 1)" in str(caught.value)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


def test_a_long_list_is_cut_in_the_message_and_whole_in_the_error():
    with pytest.raises(WeightsError, match=r"missing: .* and 68 more") as caught:
        load_torch_weights(small_unet((16, 16)), {})
    assert len(caught.value.missing) == 78
    assert caught.value.unexpected == caught.value.misshaped == ()


def test_a_model_without_a_reference_in_torch_is_refused():
    tiny = {"layers": [1, 1, 1], "growth_rate": 2, "first_filters": 2}
    model = create_model("tiramisu-56", (8, 8, 3), **tiny)
    with pytest.raises(WeightsError, match=r"known for .*u2net, u2net-lite, unet, not for tiramisu-56"):
        load_torch_weights(model, {})


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_reading_a_file_without_pytorch_says_what_to_install(tmp_path):
    with pytest.raises(BackendError, match="pip install torch"):
        read_torch_weights(tmp_path / "unet.pth")


@pytest.mark.parametrize("comparison", [each for each in SMALL if not each.name.startswith("tiramisu")], ids=str)
def test_a_file_gives_the_masks_of_the_reference(comparison, tmp_path):
    torch = pytest.importorskip("torch", reason="files of PyTorch are read by it")
    reference, size = reference_of(comparison), comparison.sizes[0]
    torch.save({**reference.state_dict(), "mask_values": [0, 1]}, tmp_path / "weights.pth")
    weights = read_torch_weights(tmp_path / "weights.pth")
    assert {name for name in weights if not name.endswith("num_batches_tracked")} == set(random_state(reference))
    model = create_model(comparison.name, (*size, comparison.channels), comparison.classes, **comparison.options)
    load_torch_weights(model, weights)
    with np.load(OUTPUTS) as kept:
        for index, mask in enumerate(masks(model, random_photos(size, comparison.channels))):
            np.testing.assert_allclose(mask, kept[comparison.key(size, index)], rtol=0, atol=1e-4)


def test_a_file_may_hold_parameters_of_any_precision(tmp_path):
    torch = pytest.importorskip("torch", reason="files of PyTorch are read by it")
    learned = torch.nn.Parameter(torch.full((2,), 0.5, dtype=torch.bfloat16))
    torch.save({"learned": learned, "counted": torch.tensor(3)}, tmp_path / "weights.pth")
    weights = read_torch_weights(tmp_path / "weights.pth")
    assert weights["learned"].dtype == np.float32
    assert weights["learned"].tolist() == [0.5, 0.5]
    assert weights["counted"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights", "is not a file of PyTorch weights"),
        (None, "is not a file of PyTorch weights"),
        ({"epoch": 3, "state_dict": {}}, "holds no tensors by name, but: epoch, state_dict; save the state dict"),
        ([1, 2], "holds no tensors by name, but: list"),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    torch = pytest.importorskip("torch", reason="files of PyTorch are read by it")
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        read_torch_weights(path)
