"""Examples as a ``tf.data.Dataset``, read and decoded by TensorFlow's own operations. Needs the extra
``tensorflow``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_client.readers.features import (
    BytesFeature,
    Feature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    TextListFeature,
    is_list,
)
from dataset_client.readers.optional import require
from dataset_client.readers.shuffle import Shuffle

_PARALLEL_FILES = 4


def make_tf_dataset(
    files: Sequence[Path], features: Mapping[str, Feature], *, batch_size: int, shuffle: Shuffle | None
) -> Any:
    """The examples of ``files`` as `Dataset.as_tf_dataset` promises them; a ``batch_size`` of 0 means
    unbatched.
    """
    tf = require("tensorflow", extra="tensorflow")
    paths = tf.constant([str(path) for path in files], tf.string)
    if shuffle is None:
        records = tf.data.TFRecordDataset(paths)
    else:
        records = shuffled(tf, tf.data.Dataset.from_tensor_slices(paths), max(len(files), 1), shuffle)
    return decoded(tf, records, features, batch_size=batch_size)


def decoded(tf: Any, records: Any, features: Mapping[str, Feature], *, batch_size: int) -> Any:
    """The examples in a dataset of records, in their order."""
    # Decoding is by far the dearest step, so it runs in parallel; the order stays.
    dataset = records.map(
        lambda record: _decode(tf, record, features), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if batch_size:
        dataset = _batched(tf, dataset, features, batch_size)
    return dataset.prefetch(tf.data.AUTOTUNE)


def shuffled(tf: Any, paths: Any, count: int, shuffle: Shuffle) -> Any:
    """Records of several files at a time, in shuffled order; what is shuffled is encoded still, and so small.

    ``paths`` is a dataset of ``count`` ≥ 1 paths, or of ``tf.data.UNKNOWN_CARDINALITY``.
    """
    options = {"seed": shuffle.seed, "reshuffle_each_iteration": shuffle.reshuffle_each_iteration}
    records = paths.shuffle(count, **options).interleave(
        tf.data.TFRecordDataset,
        cycle_length=_PARALLEL_FILES,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return records.shuffle(shuffle.buffer, **options)


def _batched(tf: Any, dataset: Any, features: Mapping[str, Feature], size: int) -> Any:
    """Batches of ``size``; lists, whose length differs between examples, become ``tf.RaggedTensor``."""
    lists = {name: _list_axis(feature) for name, feature in features.items() if is_list(feature)}
    if not lists:
        return dataset.batch(size)

    def wrap(example: dict[str, Any]) -> dict[str, Any]:  # (N, …) → ragged (1, N, …)
        return example | {
            name: tf.RaggedTensor.from_tensor(example[name][tf.newaxis], ragged_rank=axis + 1)
            for name, axis in lists.items()
        }

    def unwrap(batch: dict[str, Any]) -> dict[str, Any]:  # ragged (B, 1, N, …) → (B, N, …)
        return batch | {name: batch[name].values for name in lists}

    return dataset.map(wrap).batch(size).map(unwrap)


def _list_axis(feature: Feature) -> int:
    """The axis of a list along which examples may differ."""
    return feature.shape.index(None) if isinstance(feature, TensorFeature) else 0


def _decode(tf: Any, record: Any, features: Mapping[str, Feature]) -> dict[str, Any]:
    """One serialised Example → its features."""
    parsed = tf.io.parse_single_example(record, {name: _wire(tf, feature) for name, feature in features.items()})
    return {name: _value(tf, feature, parsed[name]) for name, feature in features.items()}


def _wire(tf: Any, feature: Feature) -> Any:
    """How a feature is stored, in the terms of ``tf.io.parse_single_example``."""
    if isinstance(feature, TextListFeature):
        return tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    if not isinstance(feature, TensorFeature) or feature.encoding == "bytes":
        return tf.io.FixedLenFeature([], tf.string)
    stored = tf.float32 if feature.is_float else tf.int64
    if None in feature.shape:
        return tf.io.FixedLenSequenceFeature([], stored, allow_missing=True)
    return tf.io.FixedLenFeature(feature.shape, stored)


def _value(tf: Any, feature: Feature, parsed: Any) -> Any:
    match feature:
        case TextFeature() | BytesFeature() | TextListFeature():
            return parsed  # () string, (N,) of a list
        case ImageFeature():
            image = _decode_image(tf, parsed, feature)  # (H, W, C) uint8
            return tf.ensure_shape(image, feature.shape)
        case TensorFeature():
            shape = [-1 if side is None else side for side in feature.shape]
            raw = feature.encoding == "bytes"
            numbers = tf.io.decode_raw(parsed, feature.dtype) if raw else tf.cast(parsed, feature.dtype)
            return tf.ensure_shape(tf.reshape(numbers, shape), feature.shape)


def _decode_image(tf: Any, data: Any, feature: ImageFeature) -> Any:
    channels = feature.shape[2]
    if feature.encoding == "jpeg":
        # the slow, exact inverse DCT is what Pillow uses too: both readers give equal pixels
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")
    if feature.encoding == "png":
        return tf.io.decode_png(data, channels=channels)
    return tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=channels, expand_animations=False),
    )
