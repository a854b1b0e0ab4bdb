"""The files of a new handler's package. ``$name``, ``$module``, ``$class_name`` … are filled in by `new`."""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "Turns the raw data of '$name' into training examples."
requires-python = ">=3.11"
dependencies = ["dataset-handlers"]

[project.entry-points.dataset_handlers]
$name = "$module:$class_name"

[tool.setuptools]
py-modules = ["$module"]
"""

HANDLER = '''\
"""Photos of `$name` with their masks.

Raw folder::

    $name/photos/<name>.jpg
    $name/masks/<name>.png     the subject is 128 or lighter
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from dataset_handlers import (
    BadSampleError,
    HandlerConfig,
    ImageFeature,
    Rejected,
    Sample,
    SampleHandler,
    SampleRandom,
    TextFeature,
)
from dataset_handlers.images import decode_mask, decode_photo

Side = Annotated[int, Field(ge=8, le=4096)]


class $config_name(HandlerConfig):
    """Options of `$name`; HandlerConfig brings seed, limit, splits, variations_per_sample and more."""

    image_size: tuple[Side, Side] = Field((256, 256), description="[height, width] of every example in pixels.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of mirroring left and right.")


class $class_name(SampleHandler):
    """Photos of $name, each with the mask of its subject."""

    Config = $config_name
    options: $config_name

    def raw_data_path(self) -> Path:
        """The raw folder."""
        return Path(self.base_data_path) / "$name"

    def features(self) -> Mapping[str, Any]:
        """What every example holds."""
        height, width = self.options.image_size
        return {
            "image": ImageFeature((height, width, 3), "jpeg", quality=95),
            "mask": ImageFeature((height, width, 1), "png"),
            "source_id": TextFeature(),
        }

    def samples(self) -> Iterator[Sample | Rejected]:
        """What there is, by keys that stay the same when files come or go. Runs once, and reads no photo."""
        for photo in self.raw_data_path().glob("photos/*.jpg"):
            if (self.raw_data_path() / "masks" / f"{photo.stem}.png").is_file():
                yield Sample(photo.stem)
            else:
                yield Rejected(photo.stem, f"{photo.name} has no mask {photo.stem}.png")

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """What becomes of one sample: a function of its files, the options and ``rng`` alone."""
        photo = decode_photo(self.read_raw(self.raw_data_path() / "photos" / f"{sample.key}.jpg"), f"{sample.key}.jpg")
        grey = decode_mask(self.read_raw(self.raw_data_path() / "masks" / f"{sample.key}.png"), f"{sample.key}.png")
        if photo.shape[:2] != grey.shape[:2]:
            raise BadSampleError(f"the photo is {photo.shape[:2]}, its mask {grey.shape[:2]}; they must agree")
        height, width = self.options.image_size
        image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        soft = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        mask = np.where(soft >= 128, 255, 0).astype(np.uint8)[..., None]
        for number in range(self.options.variations_per_sample):
            mirrored = rng.variation(number).random() < self.options.flip
            step = -1 if mirrored else 1
            yield {"image": image[:, ::step], "mask": mask[:, ::step], "source_id": sample.key}
'''

RAW_DATA = '''\
"""Draws raw data for `$name`, to try the handler on: ``python make_raw_data.py RAW``."""

import sys
from pathlib import Path

import cv2
import numpy as np


def make_raw_data(raw_root: Path, count: int = 12) -> None:
    """Write ``count`` photos of a disc before a gradient, 96 x 128 pixels, with the disc's masks."""
    folder = raw_root / "$name"
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:96, 0:128]
    for number in range(count):
        random = np.random.default_rng(number)
        x, y, radius = random.integers((40, 30, 12), (88, 66, 28))
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        photo = np.stack([rows * 2, columns, (rows + columns) % 256], axis=2)
        photo = np.where(disc[..., None], random.integers(256, size=3), photo).astype(np.uint8)
        cv2.imwrite(str(folder / "photos" / f"disc_{number:03}.jpg"), photo)
        cv2.imwrite(str(folder / "masks" / f"disc_{number:03}.png"), np.where(disc, 255, 0).astype(np.uint8))


if __name__ == "__main__":
    make_raw_data(Path(sys.argv[1]))
'''

TEST = '''\
"""The handler keeps its contract, and its examples are what they should be. Run with ``python -m pytest``."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dataset_handlers import SampleRandom
from dataset_handlers.authors.check import check_handler

sys.path.insert(0, str(Path(__file__).parent))

from $module import $class_name
from make_raw_data import make_raw_data


@pytest.fixture
def raw_root(tmp_path):
    make_raw_data(tmp_path / "raw")
    return tmp_path / "raw"


def test_the_contract(raw_root):
    verdicts = check_handler("$name", raw_root, {"image_size": [48, 64]})
    assert [verdict.render() for verdict in verdicts if verdict.state == "failed"] == []


def test_examples(raw_root):
    handler = $class_name({"image_size": [48, 64], "flip": 0}, str(raw_root))
    samples = list(handler.samples())
    assert len(samples) == 12
    for sample in samples:
        (example,) = handler.examples(sample, SampleRandom(0, sample.key))
        assert example["image"].shape == (48, 64, 3)
        assert example["mask"].shape == (48, 64, 1)
        assert set(np.unique(example["mask"])) == {0, 255}
        inside = example["image"][example["mask"][..., 0] == 255].astype(int)
        assert np.abs(inside - np.median(inside, axis=0)).mean() < 12, "the mask lies on the disc, which has one colour"


def test_mirrored_examples(raw_root):
    for_certain = {"image_size": [48, 64], "flip": 1}
    mirrored, straight = ($class_name({**for_certain, "flip": flip}, str(raw_root)) for flip in (1, 0))
    for sample in straight.samples():
        (one,) = straight.examples(sample, SampleRandom(0, sample.key))
        (other,) = mirrored.examples(sample, SampleRandom(0, sample.key))
        for name in ("image", "mask"):
            assert np.array_equal(one[name][:, ::-1], other[name])
'''

README = """\
# $distribution

A handler that turns the raw data of `$name` into training examples.

| file | what it is |
|---|---|
| `$module.py` | the handler: its options, what an example holds, what there is, and what becomes of it |
| `make_raw_data.py` | draws raw data to try it on |
| `test_$module.py` | a test of the contract and of the examples |
| `pyproject.toml` | the package; its entry point tells `dataset-handlers` of the handler |

```sh
pip install --editable .
python -m pytest
python make_raw_data.py RAW
dataset-handlers preview --dataset $name --raw-root RAW --output sheet.png
dataset-handlers check --dataset $name --raw-root RAW
dataset-handlers build --dataset $name --raw-root RAW --work-dir OUT
```

To serve it, commit and tag this folder, and name its repository in the server's configuration.
"""

GITIGNORE = """\
__pycache__/
*.egg-info/
build/
.pytest_cache/
"""

FILES = {
    "pyproject.toml": PYPROJECT,
    "$module.py": HANDLER,
    "make_raw_data.py": RAW_DATA,
    "test_$module.py": TEST,
    "README.md": README,
    ".gitignore": GITIGNORE,
}
