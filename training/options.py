"""How to train: the one set of options that `training.fit`, the launcher, TOML files and the command line share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training.augmentation import Augmentation
from training.errors import OptionsError
from training.losses import LOSSES
from training.models import model_options

#: Keras' name of each optimizer → what ``optimizer_options`` may set of it.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adam": ("beta_1", "beta_2", "epsilon", "amsgrad"),
    "adamw": ("beta_1", "beta_2", "epsilon", "amsgrad"),
    "rmsprop": ("rho", "momentum", "epsilon", "centered"),
    "sgd": ("momentum", "nesterov"),
}
#: How the learning rate goes down: see `training.schedules`.
SCHEDULES = ("constant", "exponential", "cosine", "polynomial")
#: Options that say how a training is run and watched, not what comes of it: they may differ when it is resumed.
RUNNING = ("overwrite", "resume", "save_seconds", "save_steps", "predictions_every", "log_every", "mlflow", "workers")


@dataclass(frozen=True)
class FitOptions:
    """Raises `OptionsError` (or a `ModelError`) for what cannot be; imports no Keras.

    **What is trained.** ``model`` and ``model_options``: see `training.models`. ``init``: a checkpoint to take the
    first weights from. ``classes``: None takes what the dataset's manifest says of its masks, 1 for one subject.
    ``inputs``: further planes of the examples that the model sees as channels beside the photo's three, such as
    "clicks", "trimap" or "alpha".

    **How it learns.** ``epochs``, ``batch_size`` ≥ 1 (of all devices together); ``seed`` in [0, 2**32): weights, order
    and augmentation follow from it. ``loss`` and ``loss_options``: see `training.losses`; None is "bce+dice" for one
    class, "ce" for more. ``class_weights``: None,
    "median" (median frequency balancing, Eigen and Fergus 2015, by the manifest's statistics), or a number for each
    class. ``optimizer``: one of `OPTIMIZERS`, with ``optimizer_options`` of Keras' own; ``learning_rate`` > 0;
    ``weight_decay`` ≥ 0, decoupled from the gradient (Loshchilov and Hutter 2019). ``schedule``: one of `SCHEDULES`,
    where ``decay`` in (0, 1] is the factor per epoch of "exponential", ``power`` > 0 that of "polynomial";
    ``warmup_steps`` ≥ 0 in which the rate rises linearly. ``accumulate`` ≥ 1: steps whose gradients are averaged into
    one update. ``clip_norm`` > 0: the most that the norm of all gradients together may be. ``ema`` in (0, 1): the
    decay per step of averaged weights, which are what is validated and kept. ``mixed_precision``: "bfloat16" or
    "float16". ``patience`` ≥ 1: stop after so many epochs without a better one. ``augmentation``: an `Augmentation`,
    or a mapping of its fields.

    **On what.** ``train_split``; ``validation_split`` None takes 'validation', or where the dataset has none, 'test':
    then the best checkpoint was chosen on the test split, and the IoU reported there is an optimistic one.

    **How it is run** (`RUNNING`). ``overwrite`` lets a training take the place of another in the same directory;
    ``resume`` goes on with the one that is there, and begins anew where none is. Its state is saved every
    ``save_seconds`` > 0, every ``save_steps`` ≥ 0 (0: by time alone), and after each epoch. Predictions are drawn
    every ``predictions_every`` ≥ 0 examples (0: never); the loss is written to the event file every ``log_every`` ≥ 1
    steps. ``mlflow`` logs there, too. ``workers`` ≥ 0 threads read ahead (None: one for each core, 8 at most).
    """

    model: str = "unet"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    classes: int | None = None
    inputs: tuple[str, ...] = ()
    epochs: int = 20
    batch_size: int = 8
    seed: int = 0
    loss: str | None = None
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    class_weights: str | tuple[float, ...] | None = None
    optimizer: str = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    decay: float = 0.995
    power: float = 0.9
    warmup_steps: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    mixed_precision: str | None = None
    patience: int | None = None
    augmentation: Augmentation | Mapping[str, Any] = field(default_factory=Augmentation)
    train_split: str = "train"
    validation_split: str | None = None
    overwrite: bool = False
    resume: bool = False
    save_seconds: float = 300.0
    save_steps: int = 0
    predictions_every: int = 500
    log_every: int = 10
    mlflow: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        self._require_whole(epochs=1, batch_size=1, seed=0, warmup_steps=0, accumulate=1, save_steps=0)
        self._require_whole(predictions_every=0, log_every=1)
        self._require_whole(classes=1, patience=1, workers=0, optional=True)
        if self.seed >= 2**32:
            raise OptionsError(f"seed is below 2**32, not {self.seed}")
        self._require_number("learning_rate", "a number above 0 such as 1e-3", lambda rate: 0 < rate < math.inf)
        self._require_number("weight_decay", "a number from 0 on such as 1e-4", lambda decay: 0 <= decay < math.inf)
        self._require_number("decay", "the factor per epoch, in (0, 1]", lambda decay: 0 < decay <= 1)
        self._require_number("power", "a number above 0 such as 0.9", lambda power: 0 < power < math.inf)
        self._require_number("save_seconds", "a number above 0", lambda seconds: seconds > 0)
        if self.clip_norm is not None:
            self._require_number("clip_norm", "a number above 0, or None", lambda norm: 0 < norm < math.inf)
        if self.ema is not None:
            self._require_number("ema", "between 0 and 1, such as 0.999, or None", lambda decay: 0 < decay < 1)
        if self.loss is not None:
            self._require_one_of("loss", LOSSES)
        self._require_one_of("optimizer", tuple(OPTIMIZERS))
        self._require_one_of("schedule", SCHEDULES)
        if self.mixed_precision is not None:
            self._require_one_of("mixed_precision", ("bfloat16", "float16"))
        for name in ("overwrite", "resume", "mlflow"):
            if not isinstance(getattr(self, name), bool):
                raise OptionsError(f"{name} is true or false, not {getattr(self, name)!r}")
        if self.overwrite and self.resume:
            raise OptionsError("overwrite replaces the training that is there, resume goes on with it: choose one")
        if not isinstance(self.train_split, str) or not self.train_split:
            raise OptionsError(f"train_split is the name of a split such as 'train', not {self.train_split!r}")
        if self.validation_split is not None and (
            not isinstance(self.validation_split, str) or not self.validation_split
        ):
            raise OptionsError("validation_split is the name of a split such as 'validation', or None")
        if self.init is not None:
            object.__setattr__(self, "init", str(self.init))
        self._complete()

    def _complete(self) -> None:
        """Fill in defaults, and turn what JSON and TOML have into what we hold."""
        known = OPTIMIZERS[self.optimizer]
        if unknown := sorted(set(self.optimizer_options) - set(known)):
            raise OptionsError(f"{self.optimizer} has no option {', '.join(unknown)}; it has: {', '.join(known)}")
        inputs: Any = self.inputs
        if isinstance(inputs, str) or not all(isinstance(name, str) for name in inputs):
            raise OptionsError(f"inputs are names of the examples' planes, such as ['clicks'], not {inputs!r}")
        weights = self.class_weights
        if isinstance(weights, list | tuple):
            if not all(isinstance(weight, int | float) and 0 <= weight < math.inf for weight in weights):
                raise OptionsError(f"class_weights are numbers from 0 on, not {weights!r}")
            object.__setattr__(self, "class_weights", tuple(map(float, weights)))
        elif weights not in (None, "median"):
            raise OptionsError(f"class_weights is 'median' or a number for each class, not {weights!r}")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "loss_options", dict(self.loss_options))
        object.__setattr__(self, "optimizer_options", dict(self.optimizer_options))
        object.__setattr__(self, "augmentation", Augmentation.of(self.augmentation))
        object.__setattr__(self, "model_options", model_options(self.model, self.model_options))

    def loss_for(self, classes: int) -> str:
        """The name of the loss, the default filled in."""
        return self.loss or ("bce+dice" if classes == 1 else "ce")

    def _require_whole(self, *, optional: bool = False, **least: int) -> None:
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            if type(value) is not int or value < smallest:
                raise OptionsError(f"{name} is a whole number of at least {smallest}, not {value!r}")

    def _require_number(self, name: str, form: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            raise OptionsError(f"{name} is {form}, not {value!r}")

    def _require_one_of(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise OptionsError(f"there is no {name} {getattr(self, name)!r}; there are: {', '.join(known)}")

    def to_json(self) -> dict[str, Any]:
        """All options as JSON types, the model's defaults filled in."""
        assert isinstance(self.augmentation, Augmentation)
        weights = self.class_weights
        return {
            **vars(self),
            "model_options": _plain(self.model_options),
            "inputs": list(self.inputs),
            "class_weights": list(weights) if isinstance(weights, tuple) else weights,
            "augmentation": self.augmentation.to_json(),
        }


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
