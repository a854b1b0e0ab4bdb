"""Up-sampling and fitting of one level's features to another's size, aligned as the reference implementations do.

Sizes are known when a model is built, so nothing here asks for a shape at run time. All take and give (B, h, w, c).
"""

from typing import Any


def resize_bilinear(x: Any, size: tuple[int, int], name: str) -> Any:
    """Bilinear to ``size`` = (height, width), the corners of the corner *pixels* aligned.

    That is ``align_corners=False`` in torch: output pixel i is taken at (i + ½) · n / m − ½ of the n input pixels.
    Nothing is smoothed first.
    """
    from keras import layers

    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return layers.Resizing(*size, interpolation="bilinear", name=name)(x)


def double_bilinear_aligned(x: Any, name: str) -> Any:
    """Bilinear to (2h, 2w) with the *centers* of the corner pixels aligned (``align_corners=True`` in torch).

    Output pixel i lies at i · (n − 1) / (2n − 1). With k = i // 2 that is x[k] and x[k − 1] in the shares
    1 − k / (2n − 1) and k / (2n − 1) where i is even, x[k] and x[k + 1] mirrored where it is odd. No layer of
    Keras aligns so; shifted copies, each times a fixed share per row, interleaved, do, and have a cheap gradient.
    """
    from keras import layers

    for axis, direction in ((1, "rows"), (2, "columns")):
        height, width, channels = x.shape[1:]
        count = x.shape[axis]
        share = [k / (2 * count - 1) for k in range(count)]
        before = _shift(x, axis, 1, f"{name}_{direction}_before")
        after = _shift(x, axis, -1, f"{name}_{direction}_after")
        even = layers.Add(name=f"{name}_{direction}_even")(
            [
                layers.Rescaling(_along(axis, [1 - s for s in share]), name=f"{name}_{direction}_even_own")(x),
                layers.Rescaling(_along(axis, share), name=f"{name}_{direction}_even_other")(before),
            ]
        )
        odd = layers.Add(name=f"{name}_{direction}_odd")(
            [
                layers.Rescaling(_along(axis, [1 - s for s in share[::-1]]), name=f"{name}_{direction}_odd_own")(x),
                layers.Rescaling(_along(axis, share[::-1]), name=f"{name}_{direction}_odd_other")(after),
            ]
        )
        # Side by side on the next axis and read anew, they alternate on this one.
        both = layers.Concatenate(axis=axis + 1, name=f"{name}_{direction}_both")([even, odd])
        doubled = (2 * height, width, channels) if axis == 1 else (height, 2 * width, channels)
        x = layers.Reshape(doubled, name=f"{name}_{direction}")(both)
    return x


def crop_to(x: Any, like: Any, name: str) -> Any:
    """Cut off the last rows and columns that ``x`` has more than ``like``."""
    from keras import layers

    extra = _missing(like, x)
    return layers.Cropping2D(((0, extra[0]), (0, extra[1])), name=name)(x) if any(extra) else x


def pad_to(x: Any, like: Any, name: str) -> Any:
    """Add rows and columns of zeros at the end until ``x`` has as many as ``like``."""
    from keras import layers

    missing = _missing(x, like)
    return layers.ZeroPadding2D(((0, missing[0]), (0, missing[1])), name=name)(x) if any(missing) else x


def _missing(x: Any, like: Any) -> tuple[int, int]:
    """How many rows and columns ``x`` has fewer than ``like``."""
    return like.shape[1] - x.shape[1], like.shape[2] - x.shape[2]


def _shift(x: Any, axis: int, by: int, name: str) -> Any:
    """``x`` moved by one row or column; what comes in is 0 and its share is, too."""
    from keras import layers

    inside, outside = ((1, 0), (0, 1)) if by > 0 else ((0, 1), (1, 0))
    nothing = (0, 0)
    padded = layers.ZeroPadding2D((inside, nothing) if axis == 1 else (nothing, inside), name=f"{name}_pad")(x)
    return layers.Cropping2D((outside, nothing) if axis == 1 else (nothing, outside), name=name)(padded)


def _along(axis: int, values: list[float]) -> list[Any]:
    """One value per row, (h, 1, 1), or per column, (1, w, 1), as nested lists, which a checkpoint can hold."""
    return [[[value]] for value in values] if axis == 1 else [[[value] for value in values]]
