"""A ``tf.data.Dataset`` over shards as they arrive, decoded by TensorFlow's own operations. Needs the extra
``tensorflow``.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_client.readers.features import Feature
from dataset_client.readers.optional import require
from dataset_client.readers.shuffle import Shuffle
from dataset_client.readers.tf_reader import _batched, _decode


def make_tf_stream(
    paths: Callable[[], Iterator[Path]], features: Mapping[str, Feature], *, batch_size: int, shuffle: Shuffle | None
) -> Any:
    """The examples of the files that ``paths()`` names, each iteration anew; a ``batch_size`` of 0 means unbatched."""
    tf = require("tensorflow", extra="tensorflow")
    files = tf.data.Dataset.from_generator(lambda: map(str, paths()), output_signature=tf.TensorSpec((), tf.string))
    records = files.flat_map(tf.data.TFRecordDataset)
    if shuffle is not None:
        records = records.shuffle(
            shuffle.buffer, seed=shuffle.seed, reshuffle_each_iteration=shuffle.reshuffle_each_iteration
        )
    dataset = records.map(
        lambda record: _decode(tf, record, features), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if batch_size:
        dataset = _batched(tf, dataset, features, batch_size)
    return dataset.prefetch(tf.data.AUTOTUNE)
