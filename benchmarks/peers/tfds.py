"""TensorFlow Datasets: a GeneratorBasedBuilder, which is one process.

https://www.tensorflow.org/datasets/add_dataset: ``_generate_examples`` yields a key and an example, `Image` features
encode arrays (JPEG of quality 95) and take encoded bytes as they are.
"""

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf  # noqa: F401 - TFDS would import it once the clock runs
import tensorflow_datasets as tfds

from benchmarks.peers import work
from benchmarks.tight import SIZE, tight


class Persons(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    samples: list[dict] = []  # noqa: RUF012 - set before the builder is made
    flavour = "usual"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="jpeg"),
            "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _downloads):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for sample in self.samples:
            if self.flavour == "usual":
                image, mask = work.augmented(sample)
                mask = mask[..., None]
            else:
                image, mask = tight(sample)
            yield sample["key"], {"image": image, "mask": mask}


def build(samples: list[dict], out: Path, _processes: int, flavour: str) -> None:
    Persons.samples, Persons.flavour = samples, flavour
    Persons(data_dir=str(out)).download_and_prepare()


def read(out: Path) -> Iterator[work.Pair]:
    builder = tfds.builder_from_directory(str(next(out.glob("persons/*"))))
    undecoded = {name: tfds.decode.SkipDecoding() for name in ("image", "mask")}
    for example in builder.as_dataset("train", decoders=undecoded):
        yield example["image"].numpy(), example["mask"].numpy()


if __name__ == "__main__":
    tfds.disable_progress_bar()
    work.main(build, read)
