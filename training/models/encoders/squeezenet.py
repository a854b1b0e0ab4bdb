"""SqueezeNet 1.1 (Iandola et al. 2016).

*SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size*, arXiv:1602.07360, in the authors'
version 1.1, without the classifier: 722,496 weights for photos. No convolution with a stride is padded and no layer is
normalized, as there. Layers are named as in torchvision.
"""

from typing import Any

from training.models.encoders.convolution import max_pooling_after_relu

#: What stands at each place of torchvision's ``features``: filters of a Fire module's two halves, or a pooling.
_FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}
_POOLINGS = (2, 5, 8)


def squeezenet(x: Any) -> dict[str, Any]:
    """``conv1``, ``fire3``, ``fire5`` and ``fire9``: (B, h, w, c) with c = 64, 128, 256, 512 at about a half, a
    quarter, an eighth and a sixteenth of the photo's size: h₁ = ⌊(H − 1) / 2⌋, and hₖ = ⌊hₖ₋₁ / 2⌋ below.
    """
    from keras import initializers, layers

    def convolve(x: Any, filters: int, kernel: int, name: str, *, stride: int = 1) -> Any:
        return layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding="same" if stride == 1 else "valid",
            activation="relu",
            kernel_initializer=initializers.HeUniform(),
            name=name,
        )(x)

    x = convolve(x, 64, 3, "features_0", stride=2)
    features = {"conv1": x}
    for place in range(2, 13):
        name = f"features_{place}"
        if place in _POOLINGS:
            x = max_pooling_after_relu(x, name, ceil=True)
            continue
        squeezed, expanded = _FIRES[place]
        x = convolve(x, squeezed, 1, f"{name}_squeeze")
        halves = [convolve(x, expanded, kernel, f"{name}_expand{kernel}x{kernel}") for kernel in (1, 3)]
        x = layers.Concatenate(name=name)(halves)
        features[{4: "fire3", 7: "fire5", 12: "fire9"}.get(place, name)] = x
    return {name: features[name] for name in ("conv1", "fire3", "fire5", "fire9")}
