"""Shard files as a ``tf.data.Dataset``; the only module here that needs TensorFlow."""

from typing import Any

import tensorflow as tf


def decode_records(files: list[str], features: dict[str, Any]) -> "tf.data.Dataset":
    """Parse and decode every example of ``files`` by a ``features.json`` schema.

    Images become (H, W, C) uint8, texts strings, lists of texts (N,) strings, tensors what they were declared as.
    """
    fields = features["featuresDict"]["features"]
    spec = {name: _parse_spec(field) for name, field in fields.items()}

    def decode(record: Any) -> dict[str, Any]:
        example: dict[str, Any] = tf.io.parse_single_example(record, spec)
        for name, field in fields.items():
            if image := field.get("image"):
                shape = [None if size < 0 else size for size in _shape(image)]
                example[name] = tf.io.decode_image(example[name], channels=shape[2], expand_animations=False)
                example[name] = tf.ensure_shape(example[name], shape)
            elif _is_raw(field):
                numbers = tf.io.decode_raw(example[name], field["tensor"]["dtype"])
                example[name] = tf.reshape(numbers, _shape(field["tensor"]))
        return example

    return tf.data.TFRecordDataset(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _parse_spec(field: dict[str, Any]) -> Any:
    if "sequence" in field:
        return tf.io.FixedLenSequenceFeature((), tf.string, allow_missing=True)
    if "tensor" not in field or _is_raw(field):
        return tf.io.FixedLenFeature((), tf.string)
    shape, kind = _shape(field["tensor"]), tf.as_dtype(field["tensor"]["dtype"])
    if shape and shape[0] == -1:
        return tf.io.FixedLenSequenceFeature(shape[1:], kind, allow_missing=True)
    return tf.io.FixedLenFeature(shape, kind)


def _is_raw(field: dict[str, Any]) -> bool:
    """Whether it is a tensor stored as one byte string."""
    return bool(field.get("tensor", {}).get("encoding") == "bytes")


def _shape(declared: dict[str, Any]) -> list[int]:
    """The dimensions, -1 for one that varies."""
    return [int(size) for size in declared["shape"].get("dimensions", [])]
