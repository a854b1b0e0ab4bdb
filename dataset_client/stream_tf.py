"""A ``tf.data.Dataset`` over shards as they arrive, decoded by TensorFlow's own operations. Needs the extra
``tensorflow``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_client.readers.features import Feature
from dataset_client.readers.optional import require
from dataset_client.readers.shuffle import Shuffle
from dataset_client.readers.tf_reader import decoded, shuffled


def make_tf_stream(
    arriving: Callable[[], Iterable[Path]],
    whole: Callable[[], Sequence[Path] | None],
    features: Mapping[str, Feature],
    *,
    batch_size: int,
    shuffle: Shuffle | None,
) -> Any:
    """The examples of a split; a ``batch_size`` of 0 means unbatched.

    ``whole()`` gives all files in order once they are here, else None, and ``arriving()`` gives them as they arrive. An
    iteration that finds them all at its beginning is that of `tf_reader.make_tf_dataset`.
    """
    tf = require("tensorflow", extra="tensorflow")

    def files(paths: Callable[[], Iterable[Path]]) -> Any:
        return tf.data.Dataset.from_generator(lambda: map(str, paths()), output_signature=tf.TensorSpec((), tf.string))

    streamed = files(arriving).flat_map(tf.data.TFRecordDataset)
    ordered = files(lambda: whole() or ())
    if shuffle is None:
        ordinary = ordered.flat_map(tf.data.TFRecordDataset)
    else:
        streamed = streamed.shuffle(
            shuffle.buffer, seed=shuffle.seed, reshuffle_each_iteration=shuffle.reshuffle_each_iteration
        )
        ordinary = shuffled(tf, ordered, tf.data.UNKNOWN_CARDINALITY, shuffle)
    # Which of the two it is, is decided once, as an iteration begins.
    kind = tf.data.Dataset.from_generator(
        lambda: [0 if whole() is None else 1], output_signature=tf.TensorSpec((), tf.int64)
    )
    kinds = kind.flat_map(lambda number: tf.data.Dataset.from_tensors(number).repeat())
    # One that is not asked for is not begun either: seeds that differ from pass to pass are those of ordinary passes.
    begun_late = tf.data.Dataset.from_tensors(0).flat_map(lambda _: ordinary)
    records = tf.data.Dataset.choose_from_datasets([streamed, begun_late], kinds)
    return decoded(tf, records, features, batch_size=batch_size)
