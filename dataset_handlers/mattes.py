"""Photos with their true opacity, as matting data sets ship it.

Raw folder, all in one (``NAME_trimap.png`` may be there)::

    NAME.png, NAME.jpg or NAME.jpeg    NAME_alpha.png    NAME_trimap.png

The photo is used as it was published, its background and all. A trimap is computed of the alpha, in the widths that
the config says, also where the publisher ships one: the two would not fit together after a change of scale.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from .config import FolderName, PhotoConfig
from .errors import BadSampleError, RawDataError
from .files import is_readable
from .images import decode_mask
from .labels.shapes import Matte, Raster
from .photo import Photo
from .plan import Rejected, Sample
from .rgba import subject_of
from .sample_handler import SampleHandler
from .scene import Scene
from .segmentation import SegmentationHandler

_PHOTOS = {".jpg", ".jpeg", ".png"}
_ALPHA, _TRIMAP = "_alpha", "_trimap"


class MattesConfig(PhotoConfig):
    """Options of the `mattes` handler."""

    offered: ClassVar[frozenset[str]] = PhotoConfig.offered | {"alpha"}

    raw_folder: FolderName = Field("mattes", description="Folder below the raw root with photos and their alphas.")
    mask_edges: Literal["threshold", "soft"] = Field(
        "threshold",
        description="What becomes of partial opacity in the mask: a level of 128 or more is subject, or it stays grey.",
    )


class MattesHandler(SegmentationHandler):
    """Photo, mask and true alpha."""

    Config: ClassVar[type[MattesConfig]] = MattesConfig
    options: MattesConfig

    def raw_data_path(self) -> Path:
        """The folder of the photos and alphas."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every photo that has an alpha."""
        yield from matte_samples(self.raw_data_path())

    def load(self, sample: Sample, _variation: int, _random: np.random.Generator) -> Scene:
        """The photo, its mask and its alpha."""
        reused = self.options.variations_per_sample > 1
        return load_matte(self, self.raw_data_path(), sample.data, self.options.mask_edges, reused=reused)


def matte_samples(root: Path) -> Iterator[Sample | Rejected]:
    """Samples by the name of the photo without its ending; photos without alpha, and the reverse, are rejected.

    Raises `RawDataError` where there is no alpha at all.
    """
    found = root.iterdir() if root.is_dir() else ()
    files = sorted(path for path in found if path.suffix.lower() in _PHOTOS and is_readable(path))
    alphas = {
        path.stem.removesuffix(_ALPHA): path.name
        for path in files
        if path.stem.endswith(_ALPHA) and path.suffix.lower() == ".png"
    }
    if not alphas:
        raise RawDataError(
            f"there is no NAME_alpha.png in the raw folder '{root.name}'; put photos (NAME.png or NAME.jpg) and their "
            "alphas there, or choose another raw_folder"
        )
    names_of_alphas = set(alphas.values())
    used: dict[str, str] = {}
    for path in files:
        if path.name in names_of_alphas or path.stem.endswith(_TRIMAP):
            continue
        if path.stem not in alphas:
            yield Rejected(path.name, f"{path.name} has no alpha {path.stem}{_ALPHA}.png")
        elif path.stem in used:
            yield Rejected(path.name, f"{path.name} and {used[path.stem]} have one name; {used[path.stem]} is used")
        else:
            used[path.stem] = path.name
            yield Sample(path.stem, {"photo": path.name, "alpha": alphas[path.stem]})
    for stem in alphas.keys() - used.keys():
        yield Rejected(stem, f"{alphas[stem]} has no photo")


def load_matte(
    handler: SampleHandler,
    root: Path,
    data: dict[str, Any],
    edges: Literal["threshold", "soft"] = "threshold",
    *,
    reused: bool = False,
) -> Scene:
    """The photo of a sample with its alpha; raises `BadSampleError` for an alpha without subject."""
    photo = Photo(handler.read_raw(root / data["photo"]), data["photo"], reused=reused)
    alpha = decode_mask(handler.read_raw(root / data["alpha"]), data["alpha"])
    subject = subject_of(alpha)
    if not subject.any():
        raise BadSampleError(f"{data['alpha']}: no pixel is opaque (level 128 or more), there is no subject")
    return Scene(photo, Matte(alpha) if edges == "soft" else Raster(subject), alpha=Matte(alpha))
