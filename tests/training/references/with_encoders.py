"""FCN, DeepLabv3 and SharpMask against their references: the cases, and what the references give for them.

As `compare` does it; the outputs are made by

    python -m tests.training.references.with_encoders
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.references.compare import VARIABLES, random_photos, random_state, random_value, reference_outputs

OUTPUTS = Path(__file__).with_name("outputs_with_encoders.npz")
_DEPTHWISE, _OTHER = (2, 3, 0, 1), (2, 3, 1, 0)


@dataclass(frozen=True)
class Case:
    """A model on photos of ``sizes``; ``reference`` is what its reference is made with."""

    name: str
    options: dict[str, Any]
    reference: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    channels: int = 3
    classes: int = 1

    def __str__(self) -> str:
        options = [f"{key}={value}" for key, value in self.options.items()]
        return "-".join((self.name, *options, f"{self.channels}to{self.classes}"))

    def key(self, size: tuple[int, int]) -> str:
        return f"{self}/{size[0]}x{size[1]}"


def _fcn(stride: int, base: int, head: int, sizes: tuple, **shape: int) -> Case:
    options, reference = {"base_filters": base, "head_filters": head}, {"base": base, "head": head}
    return Case(f"fcn-{stride}", options, {"stride": stride} | reference, sizes, **shape)


def _deeplab(encoder: str, output_stride: int, sizes: tuple, **shape: int) -> Case:
    options = {"encoder": encoder, "output_stride": output_stride}
    return Case("deeplab-v3", options, options, sizes, **shape)


#: For every run of the tests. Sizes are odd, equal to a layer's stride or one beside it, and the least there can be.
SMALL = (
    _fcn(32, 4, 8, ((1, 1), (33, 70)), classes=3),
    _fcn(16, 4, 8, ((33, 70), (64, 31))),
    _fcn(8, 4, 8, ((1, 18), (33, 70), (64, 31)), channels=5, classes=3),
    _deeplab("mobilenet-v2", 16, ((65, 50), (33, 96)), channels=5),
    _deeplab("resnet-50", 8, ((49, 34),), classes=4),
    Case("sharpmask", {}, {}, ((17, 18), (35, 50), (64, 81)), channels=5),
    Case("sharpmask", {"mask_filters": 48}, {"k": 48}, ((22, 19),), classes=3),
)

#: As published; minutes of CPU.
WHOLE = (
    _fcn(32, 64, 4096, ((65, 90),), classes=21),
    _fcn(16, 64, 4096, ((65, 90),), classes=21),
    _fcn(8, 64, 4096, ((65, 90), (32, 33)), classes=21),
    _deeplab("mobilenet-v2", 8, ((129, 98),)),
    _deeplab("resnet-50", 16, ((129, 98), (64, 64)), classes=21),
    _deeplab("resnet-101", 8, ((97, 66),), classes=21),
    Case("sharpmask", {}, {}, ((224, 224), (161, 243)), channels=5),
)


def has_encoder(name: str) -> bool:
    """Whether the model of that name is one of those here; the others are `compare`'s."""
    return name.startswith(("fcn-", "deeplab-", "sharpmask"))


def reference_of(case: Case) -> Any:
    """The module in PyTorch, in evaluation mode, with `random_state`."""
    import torch

    from tests.training.references.deeplab import DeepLab
    from tests.training.references.fcn import FCN
    from tests.training.references.sharpmask import SharpMask

    kind = {"fcn": FCN, "deeplab": DeepLab, "sharpmask": SharpMask}[case.name.partition("-")[0]]
    module = kind(**case.reference, channels=case.channels, classes=case.classes)
    state = {name: torch.from_numpy(value) for name, value in random_state(module).items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module.eval()


def set_random_weights(model: Any) -> None:
    """Give each variable of a Keras model the `random_value` of its name in PyTorch."""
    names = torch_names(model)
    for layer in model.layers:
        axes = _DEPTHWISE if type(layer).__name__ == "DepthwiseConv2D" else _OTHER
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if len(shape) == len(axes):
                shape = tuple(shape[axes.index(axis)] for axis in range(len(axes)))
            value = random_value(f"{names[layer.name]}.{VARIABLES[variable.name]}", shape)
            variable.assign(value.transpose(axes) if value.ndim == len(axes) else value)


def torch_names(model: Any) -> dict[str, str]:
    """The reference's name of each layer: dots for underscores, but for FCN's, which are Caffe's."""
    names = [layer.name for layer in model.layers]
    if model.name.startswith("fcn"):
        return {name: name for name in names}
    dotted = {name: name.replace("_", ".") for name in names}
    if model.name == "sharpmask":
        return dotted
    head = "classifier"
    return {
        name: dot if dot.startswith(head) else f"backbone.{dot.removeprefix('features.')}"
        for name, dot in dotted.items()
    }


def main() -> None:
    """Write `OUTPUTS`."""
    kept = {}
    for case in SMALL:
        module = reference_of(case)
        for size in case.sizes:
            (output,) = reference_outputs(module, random_photos(size, case.channels))
            kept[case.key(size)] = output
            print(case.key(size), output.shape, f"{output.mean():.3f} ± {output.std():.3f}")
    np.savez_compressed(OUTPUTS, **kept)


if __name__ == "__main__":
    main()
