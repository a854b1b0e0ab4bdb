"""tf.data: ``map`` in parallel threads, tf.io.TFRecordWriter at the end.

https://www.tensorflow.org/guide/data_performance#parallelizing_data_transformation for ``map``,
https://www.tensorflow.org/tutorials/load_data/tfrecord for the writer,
https://www.tensorflow.org/tutorials/images/data_augmentation for the augmentations with ``tf.image``; the rotation is
the operation that Keras' RandomRotation uses. The mask is drawn by pycocotools in a `numpy_function`.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from benchmarks.peers import work
from benchmarks.tight import DEGREES, QUALITY, SIZE, STOPS, tight


def _draw(polygons: bytes, height: int, width: int):
    return work.draw_mask(json.loads(polygons), int(height), int(width))


def usual(row: dict) -> tuple[tf.Tensor, tf.Tensor]:
    photo = tf.io.decode_jpeg(tf.io.read_file(row["photo"]), channels=3)
    mask = tf.numpy_function(_draw, [row["polygons"], row["height"], row["width"]], tf.uint8)
    both = tf.concat([photo, tf.reshape(mask, [row["height"], row["width"], 1]) * 255], axis=2)
    both = tf.image.random_flip_left_right(tf.image.random_crop(both, [SIZE, SIZE, 4]))
    angle = tf.random.uniform([], -math.radians(DEGREES), math.radians(DEGREES))
    cos, sin, middle = tf.cos(angle), tf.sin(angle), (SIZE - 1) / 2
    x = middle - middle * (cos - sin)
    y = middle - middle * (sin + cos)
    matrix = tf.stack([[cos, -sin, x, sin, cos, y, 0.0, 0.0]])

    def rotated(picture: tf.Tensor, interpolation: str) -> tf.Tensor:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=picture[None],
            transforms=matrix,
            output_shape=[SIZE, SIZE],
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode="REFLECT",
        )[0]

    gain = 2.0 ** tf.random.uniform([], -STOPS, STOPS)
    exposed = tf.saturate_cast(tf.round(tf.cast(rotated(both[..., :3], "BILINEAR"), tf.float32) * gain), tf.uint8)
    image = tf.io.encode_jpeg(exposed, quality=QUALITY)
    return image, tf.io.encode_png(rotated(both[..., 3:], "NEAREST"))


def shared(row: dict) -> tuple[tf.Tensor, tf.Tensor]:
    def call(photo: bytes, polygons: bytes, height: int, width: int, number: int) -> work.Pair:
        sample = {"photo": photo.decode(), "polygons": json.loads(polygons)}
        return tight({**sample, "height": int(height), "width": int(width), "number": int(number)})

    names = ("photo", "polygons", "height", "width", "number")
    return tf.numpy_function(call, [row[name] for name in names], [tf.string, tf.string])


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def build(samples: list[dict], out: Path, processes: int, flavour: str) -> None:
    tf.config.threading.set_inter_op_parallelism_threads(processes)
    tf.config.threading.set_intra_op_parallelism_threads(processes)
    columns = {name: [sample[name] for sample in samples] for name in ("photo", "height", "width", "number")}
    columns["polygons"] = [json.dumps(sample["polygons"]) for sample in samples]
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    dataset = dataset.map(usual if flavour == "usual" else shared, num_parallel_calls=processes)
    with tf.io.TFRecordWriter(str(out / "train.tfrecord")) as writer:
        for image, mask in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            features = tf.train.Features(feature={"image": _bytes(image), "mask": _bytes(mask)})
            writer.write(tf.train.Example(features=features).SerializeToString())


def read(out: Path) -> Iterator[work.Pair]:
    for record in tf.data.TFRecordDataset(str(out / "train.tfrecord")).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        yield feature["image"].bytes_list.value[0], feature["mask"].bytes_list.value[0]


if __name__ == "__main__":
    work.main(build, read, albumentations=False)
