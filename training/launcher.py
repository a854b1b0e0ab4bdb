"""Ask for a dataset, wait for it without holding a GPU, then train."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from dataset_client import Dataset, request_dataset
from training.options import FitOptions
from training.readiness import require_ready
from training.result import FitResult


def launch_training(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    output_dir: str | os.PathLike[str],
    fit_options: FitOptions | None = None,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    request: Callable[..., Dataset] = request_dataset,
) -> FitResult:
    """Request a dataset, wait until it is here and verified, then train on it: see `training.fit.fit`.

    The first seven options are those of `dataset_client.request_dataset`, which says what it raises;
    ``request`` is what is called in its place, with the same arguments. ``timeout`` is in seconds.

    What can be wrong with ``fit_options``, the output directory or the Keras installation is found before
    the request (`TrainingError`). Keras is imported only when the dataset is here: until then this process
    uses no GPU.
    """
    options = fit_options or FitOptions()
    require_ready(options, output_dir)
    dataset = request(
        dataset_name,
        handler_version,
        dataset_config,
        server_url=server_url,
        cache_dir=cache_dir,
        token=token,
        timeout=timeout,
        progress=progress,
    )
    from training.fit import fit

    return fit(dataset, output_dir, options, progress=progress)
