"""The same weights and photos on both sides, without torch on ours.

Weights are a function of their name and shape, so that a reference in PyTorch and a model in Keras get the same ones
in different processes. What the references give is kept in `OUTPUTS`, which tests read where there is no torch; made by

    python -m tests.training.references.compare
"""

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OUTPUTS = Path(__file__).with_name("outputs.npz")
#: Keras' name of a variable → PyTorch's.
VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Comparison:
    """A model of ours (``name``, ``options``) on photos of ``sizes``, against its reference."""

    name: str
    options: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    channels: int = 3
    classes: int = 1
    #: What the reference is made with beyond the options.
    reference: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "-".join(f"{key}={value}".replace(" ", "") for key, value in self.options.items())
        return "-".join(filter(None, (self.name, options, f"{self.channels}to{self.classes}")))

    def key(self, size: tuple[int, int], output: int) -> str:
        return f"{self}/{size[0]}x{size[1]}/{output}"


#: Small enough for every run of the tests; each has odd sizes and every option that changes what is computed.
SMALL = (
    Comparison("unet", {"base_filters": 4, "depth": 3}, ((40, 24), (29, 43))),
    Comparison("unet", {"base_filters": 4, "depth": 3, "upsampling": "bilinear"}, ((29, 43),), 5, 3),
    Comparison(
        "tiramisu-56",
        {"growth_rate": 4, "layers": (2, 3, 2, 3, 1), "first_filters": 6},
        ((32, 24), (27, 38)),
        classes=4,
    ),
    Comparison("u2net-lite", {"width": 0.25}, ((37, 45),), 4),
    Comparison("u2net", {"width": 0.0625}, ((32, 21),), 3, 2),
)

#: As published; minutes of CPU.
WHOLE = (
    Comparison("unet", {"base_filters": 64}, ((64, 96), (75, 53))),
    Comparison("unet", {"base_filters": 64, "upsampling": "bilinear"}, ((75, 53),), classes=2),
    Comparison("tiramisu-56", {}, ((64, 96), (75, 53)), classes=11),
    Comparison("tiramisu-67", {}, ((75, 53),), classes=11),
    Comparison("tiramisu-103", {}, ((64, 96), (75, 53)), classes=11),
    Comparison("u2net-lite", {}, ((96, 64), (75, 53), (33, 65))),
    Comparison("u2net", {}, ((96, 64), (75, 53))),
)


def random_value(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A weight in PyTorch's layout, float32: near He's variance for kernels, so that no activation fades or grows."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())]).random(shape)
    if len(shape) == 4:
        value = (2 * random - 1) * math.sqrt(6 / math.prod(shape[1:]))
    elif name.endswith("running_var"):
        value = 0.5 + random
    elif name.endswith("weight"):
        value = 0.35 + 0.7 * random  # less than 1: residual connections add up
    else:
        value = 0.6 * random - 0.3
    if name == "conv1_1.weight":  # FCN's, whose photos are not scaled: scores would be all or nothing
        value /= 50
    return value.astype(np.float32)


def random_photos(size: tuple[int, int], channels: int, seed: int = 0) -> np.ndarray:
    """A photo, float32 (1, H, W, channels), of whole levels in [0, 255]."""
    return np.random.default_rng([seed, *size]).integers(0, 256, (1, *size, channels)).astype(np.float32)


def torch_shape(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """(h, w, in, out) → (out, in, h, w), and the same for a transposed convolution, where in and out are changed."""
    return (kernel[3], kernel[2], kernel[0], kernel[1]) if len(kernel) == 4 else kernel


def set_random_weights(model: Any, names: dict[str, str] | None = None, seed: int = 0) -> None:
    """Give each variable of a Keras model the `random_value` of its name in PyTorch.

    ``names`` are of the layers, where they are called otherwise there.
    """
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{(names or {}).get(layer.name, layer.name)}.{VARIABLES[variable.name]}"
            value = random_value(name, torch_shape(tuple(variable.shape)), seed)
            variable.assign(np.moveaxis(value, (0, 1), (3, 2)) if value.ndim == 4 else value)


def random_state(reference: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """`random_value` of each entry of a torch module's state dict but for the counters of batches."""
    return {
        name: random_value(name, tuple(value.shape), seed)
        for name, value in reference.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def reference_of(comparison: Comparison) -> Any:
    """The module in PyTorch, in evaluation mode, with `random_state`."""
    import torch

    from tests.training.references import tiramisu, u2net, unet

    options = {"channels": comparison.channels, "classes": comparison.classes}
    options |= asdict_of(comparison) | comparison.reference
    if comparison.name == "unet":
        module = unet.UNet(**options)
    elif comparison.name.startswith("tiramisu"):
        module = tiramisu.FCDenseNet(**options)
    else:
        module = u2net.U2Net(filters=u2net.LITE if comparison.name == "u2net-lite" else u2net.FULL, **options)
    state = {name: torch.from_numpy(value) for name, value in random_state(module).items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module.eval()


def asdict_of(comparison: Comparison) -> dict[str, Any]:
    """The options with their defaults filled in, which the registry knows."""
    from training.models import model_options

    return model_options(comparison.name, comparison.options)


def reference_outputs(module: Any, photos: np.ndarray) -> list[np.ndarray]:
    """float32 (B, H, W, classes) each."""
    import torch

    with torch.no_grad():
        outputs = as_list(module(torch.from_numpy(photos.transpose(0, 3, 1, 2).copy())))
    return [output.numpy().transpose(0, 2, 3, 1) for output in outputs]


def main() -> None:
    """Write `OUTPUTS`."""
    kept = {}
    for comparison in SMALL:
        module = reference_of(comparison)
        for size in comparison.sizes:
            outputs = reference_outputs(module, random_photos(size, comparison.channels))
            for index, output in enumerate(outputs):
                kept[comparison.key(size, index)] = output
                print(comparison.key(size, index), output.shape, f"{output.mean():.3f} ± {output.std():.3f}")
    np.savez_compressed(OUTPUTS, **kept)


if __name__ == "__main__":
    main()
