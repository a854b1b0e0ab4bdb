"""What Keras' ``fit`` trains on, on the backend that KERAS_BACKEND names.

python keras_fit.py DATASET SEEN.npz       # inputs float32 (N, H, W, 3) and labels float32 (N, H, W, 1), in order
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from dataset_client import Dataset


class Noting(keras.Model):
    """Keeps a copy of what each training step is given."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.inputs_seen, self.labels_seen = [], []

    def train_step(self, *arguments):  # (state, data) with JAX, else (data)
        inputs, labels = arguments[-1]
        self.inputs_seen.append(keras.ops.convert_to_numpy(inputs))
        self.labels_seen.append(keras.ops.convert_to_numpy(labels))
        return super().train_step(*arguments)


def main(path: Path, out: Path) -> None:
    manifest = {"dataset_id": "seen"} | json.loads((path / "manifest.json").read_bytes())
    batches = Dataset(path, manifest, {}).as_keras_dataset("train", batch_size=3)
    picture = keras.Input((None, None, 3))
    model = Noting(picture, keras.layers.Conv2D(1, 1, activation="sigmoid")(picture))
    model.compile("sgd", "binary_crossentropy", run_eagerly=True)
    model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[batches.epochs()])
    np.savez(out, inputs=np.concatenate(model.inputs_seen), labels=np.concatenate(model.labels_seen))
    print(keras.backend.backend())


main(Path(sys.argv[1]), Path(sys.argv[2]))
