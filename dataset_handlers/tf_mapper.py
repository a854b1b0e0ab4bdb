"""Shard files as a ``tf.data.Dataset``; the only module here that needs TensorFlow."""

from typing import Any

import tensorflow as tf


def decode_records(files: list[str], features: dict[str, Any]) -> "tf.data.Dataset":
    """Parse and decode every example of ``files`` by a ``features.json`` schema; images become (H, W, C) uint8."""
    fields = features["featuresDict"]["features"]
    spec = {name: _parse_spec(field) for name, field in fields.items()}

    def decode(record: Any) -> dict[str, Any]:
        example: dict[str, Any] = tf.io.parse_single_example(record, spec)
        for name, field in fields.items():
            image = field.get("image")
            if image:
                shape = [None if size == "-1" else int(size) for size in image["shape"]["dimensions"]]
                example[name] = tf.io.decode_image(example[name], channels=shape[2], expand_animations=False)
                example[name] = tf.ensure_shape(example[name], shape)
        return example

    return tf.data.TFRecordDataset(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _parse_spec(field: dict[str, Any]) -> Any:
    tensor = field.get("tensor")
    if tensor is None:
        return tf.io.FixedLenFeature((), tf.string)
    shape = [int(size) for size in tensor["shape"].get("dimensions", [])]
    kind = tf.as_dtype(tensor["dtype"])
    if shape and shape[0] == -1:
        return tf.io.FixedLenSequenceFeature(shape[1:], kind, allow_missing=True)
    return tf.io.FixedLenFeature(shape, kind)
