"""Which photos the report shows."""

from collections.abc import Sequence

import numpy as np


def choose(ious: Sequence[np.ndarray], most: int) -> dict[str, list[int]]:
    """Places of the ``worst`` photos and the ``best``, by the mean of the models' IoUs (each (N,)), and of those where
    the models ``differ`` most; up to ``most`` of each, the most telling first.

    No photo is shown twice: where there are few, the worst come first. Equal ones come in their order.
    """
    values = np.stack(ious)
    mean, spread = values.mean(axis=0), np.ptp(values, axis=0)
    worst = [int(place) for place in np.argsort(mean, kind="stable")[: min(most, len(mean))]]
    best = [int(place) for place in np.argsort(-mean, kind="stable") if place not in set(worst)][:most]
    apart = [int(place) for place in np.argsort(-spread, kind="stable") if spread[place] > 0]
    differ = [place for place in apart if place not in {*worst, *best}][:most]
    return {"worst": worst, "best": best, "differ": differ if len(ious) > 1 else []}
