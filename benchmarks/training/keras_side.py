"""A step of ours: `training`'s own, on Keras' backend.

    python -m benchmarks.training.keras_side NUMBER [--size S] [--threads N] [--jit auto|yes|no]

NUMBER counts `benchmarks.training.works.WORKS` from 0. The step is the one of a training: loss, gradients, optimizer,
and the IoU of the epoch so far; on batches of floats, as PyTorch's is.
"""

import argparse
import os

from benchmarks.training.steps import LEARNING_RATE, serve
from benchmarks.training.works import WORKS, Work, batch_of


def make(work: Work, jit: str):
    import numpy as np

    from tests.training.references import compare, with_encoders
    from training.models import create_model, model_family
    from training.optimizers import create_optimizer
    from training.options import FitOptions
    from training.trainer import make_trainer

    model = create_model(work.name, (work.size, work.size, work.channels), 1, **work.options)
    if with_encoders.has_encoder(work.name):
        with_encoders.set_random_weights(model)
    else:
        names = model_family(work.name).torch_names
        compare.set_random_weights(model, names([layer.name for layer in model.layers]) if names else None)
    options = FitOptions(work.name, work.options, loss="bce", learning_rate=LEARNING_RATE)
    optimizer = create_optimizer(options, epoch_steps=1000)
    trainer = make_trainer(model, options, classes=1, weights=None, optimizer=optimizer)
    if jit != "auto":
        trainer.jit_compile = jit == "yes"
    photos, masks = batch_of(work)
    fused = compare.as_list(model.predict_on_batch(photos))[0]  # eagerly, it would keep what each layer gives
    probability = np.clip(fused, 1e-7, 1 - 1e-7)
    loss = -np.mean(masks * np.log(probability) + (1 - masks) * np.log(1 - probability))
    weights = sum(int(np.prod(weight.shape)) for layer in model.layers for weight in layer.trainable_weights)
    return float(loss), lambda: trainer.step(photos, masks)["loss"], weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--jit", choices=("auto", "yes", "no"), default="auto")
    options = parser.parse_args()
    work = WORKS[options.number]
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    serve(lambda: make(work.smaller(options.size) if options.size else work, options.jit))


if __name__ == "__main__":
    main()
