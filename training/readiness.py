"""Whether a training can begin at all, as far as that is known before its dataset is here; imports no Keras."""

import os

from training.backend import require_backend
from training.options import FitOptions
from training.outputs import Outputs, existing_checkpoint, prepare_outputs
from training.trackers import require_mlflow


def require_ready(options: FitOptions, output_dir: str | os.PathLike[str]) -> Outputs:
    """The output directory, made if need be. Raises `BackendError`, `OutputError` or `CheckpointError`; deletes
    nothing.
    """
    require_backend()
    if options.mlflow:
        require_mlflow()
    outputs = prepare_outputs(output_dir, overwrite=options.overwrite, resume=options.resume)
    if options.init is not None and not (options.resume and outputs.state.exists()):
        existing_checkpoint(options.init)
    return outputs
