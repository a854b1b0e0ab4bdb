"""How to evaluate: the options that `evaluate_runs` and the command line share."""

from dataclasses import dataclass
from typing import Any

from training.errors import OptionsError

_LEAST = {"batch_size": 1, "seed": 0, "resamples": 100, "examples": 0, "suspects": 0}


@dataclass(frozen=True)
class EvaluationOptions:
    """Raises `OptionsError` for what cannot be; imports no Keras.

    ``split`` is evaluated; ``batch_size`` photos are predicted at once. ``resamples`` ≥ 100 is the number of
    bootstrap resamples, drawn from ``seed``; ``confidence``, in (0, 1), is that of the intervals. ``examples`` is
    how many best and how many worst photos are shown, ``suspects`` how many suspect labels. ``resize`` lets a model
    see photos at the size it was trained on, whatever theirs is. ``stretch`` stretches each prediction to reach from
    0 to 1 before saliency is measured, as published figures mostly do. ``baselines`` fits the baselines on
    ``train_split`` and reports them beside the models. ``workers`` processes score (0: this one; None: one for each
    core, where there are photos enough to pay for starting them). ``class_names``, where there are several classes,
    name them, in order.
    """

    split: str = "test"
    batch_size: int = 8
    seed: int = 0
    resamples: int = 2000
    confidence: float = 0.95
    examples: int = 6
    suspects: int = 24
    resize: bool = False
    stretch: bool = False
    baselines: bool = False
    train_split: str = "train"
    workers: int | None = None
    class_names: tuple[str, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            self._require_count(name, least)
        if self.workers is not None:
            self._require_count("workers", 0)
        if isinstance(self.confidence, bool) or not 0 < self.confidence < 1:
            raise OptionsError(f"confidence is a share between 0 and 1 such as 0.95, not {self.confidence!r}")
        for name in ("split", "train_split"):
            if not getattr(self, name):
                raise OptionsError(f"{name} is the name of a split such as 'test', not an empty string")

    def _require_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or value < least:
            raise OptionsError(f"{name} is a whole number of at least {least}, not {value!r}")

    def to_json(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON types."""
        kept = ("split", "seed", "resamples", "confidence", "resize", "stretch", "baselines", "train_split")
        return {name: getattr(self, name) for name in kept}
