"""Losses against their formulas in float64, and their gradients against differences of those."""

import math

import keras
import numpy as np
import pytest
from scipy import ndimage

from training.errors import ModelShapeError, OptionsError
from training.losses import LOSSES, check_loss, create_loss, sum_over_outputs
from training.losses.structure import ssim_loss

if keras.backend.backend() == "torch":  # Keras hands a tensor to numpy in a way that numpy 2.3 no longer likes
    pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

VOID = 255
ONE = [name for name in LOSSES if not name.startswith("ce")]
MANY = ["ce", "focal", "dice", "iou", "lovasz", "ce+dice"]


def one_class(seed, count=3, side=9, soft=True):
    """Truth, a fifth of it soft, and probability: float32 (B, H, W, 1)."""
    random = np.random.default_rng(seed)
    truth = (random.random((count, side, side, 1)) < random.uniform(0.2, 0.8)).astype(np.float32)
    if soft:
        softened = random.random(truth.shape) < 0.2
        truth[softened] = random.uniform(0.05, 0.95, softened.sum())
    return truth, random.uniform(0.02, 0.98, truth.shape).astype(np.float32)


def many_classes(seed, classes=4, count=3, side=7):
    """Class numbers, of which one is missing and a fifth is void, and probabilities (B, H, W, classes)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes - 1, (count, side, side, 1))
    truth[random.random(truth.shape) < 0.2] = VOID
    probability = random.uniform(0.02, 1, (count, side, side, classes)).astype(np.float32)
    return truth, probability / probability.sum(axis=-1, keepdims=True)


# The formulas, of one example in float64: truth and probability (H, W, 1), or (N,) class numbers and (N, classes).


def bce_of(t, p, w=(1, 1), gamma=0):
    terms = -w[1] * t * (1 - p) ** gamma * np.log(p) - w[0] * (1 - t) * p**gamma * np.log(1 - p)
    return terms.mean()


def dice_of(t, p, s=1.0):
    return 1 - (2 * (t * p).sum() + s) / (t.sum() + p.sum() + s)


def iou_of(t, p, s=1.0):
    return 1 - ((t * p).sum() + s) / (t.sum() + p.sum() - (t * p).sum() + s)


def lovasz_of(t, p):
    """The errors in falling order, each times what it adds to the Jaccard loss of the set of pixels before it."""
    t, p = t.ravel() >= 0.5, p.ravel()
    errors = np.abs(t - p)
    total, before, wrong = 0.0, 0.0, np.zeros(t.shape, bool)
    for index in np.argsort(-errors, kind="stable"):
        wrong[index] = True
        predicted = t ^ wrong
        union = np.count_nonzero(t | predicted)
        loss = 1 - (np.count_nonzero(t & predicted) / union if union else 1.0)
        total, before = total + errors[index] * (loss - before), loss
    return total


def ssim_of(t, p):
    steps = np.arange(-5, 6)
    bell = np.exp(-(steps**2) / (2 * 1.5**2))
    kernel = np.outer(bell, bell) / bell.sum() ** 2

    def mean(values):
        return ndimage.correlate(values, kernel, mode="constant")

    t, p = t[..., 0], p[..., 0]
    mt, mp = mean(t), mean(p)
    vt, vp, cov = mean(t * t) - mt**2, mean(p * p) - mp**2, mean(t * p) - mt * mp
    index = (2 * mt * mp + 1e-4) * (2 * cov + 9e-4) / ((mt**2 + mp**2 + 1e-4) * (vt + vp + 9e-4))
    return 1 - index.mean()


ONE_CLASS = {
    "bce": bce_of,
    "focal": lambda t, p: bce_of(t, p, gamma=2),
    "dice": dice_of,
    "iou": iou_of,
    "lovasz": lovasz_of,
    "bce+dice": lambda t, p: bce_of(t, p) + dice_of(t, p),
    "basnet": lambda t, p: bce_of(t, p) + ssim_of(t, p) + iou_of(t, p, 0),
}


def by_class(each):
    """A loss of one mask, as the mean over the classes that are there."""

    def of(t, p, w=None):
        there = [c for c in range(p.shape[1]) if (t == c).any()]
        values = [each((t == c).astype(float), p[:, c]) for c in there]
        return np.average(values, weights=None if w is None else [w[c] for c in there])

    return of


def ce_of(t, p, w=None, gamma=0):
    own = p[np.arange(len(t)), t]
    return (-(np.ones(p.shape[1]) if w is None else np.array(w))[t] * (1 - own) ** gamma * np.log(own)).mean()


MANY_CLASSES = {
    "ce": ce_of,
    "focal": lambda t, p, w=None: ce_of(t, p, w, gamma=2),
    "dice": by_class(dice_of),
    "iou": by_class(iou_of),
    "lovasz": by_class(lovasz_of),
    "ce+dice": lambda t, p, w=None: ce_of(t, p, w) + by_class(dice_of)(t, p, w),
}


def of_examples(formula, truth, probability, **arguments):
    """A formula of each example of a batch, without its void pixels where there are classes."""
    values = []
    for t, p in zip(truth, probability.astype(np.float64), strict=True):
        if truth.dtype.kind == "f":
            values.append(formula(t.astype(np.float64), p, **arguments))
        else:
            known = t.ravel() != VOID
            values.append(formula(t.ravel()[known], p.reshape(-1, p.shape[-1])[known], **arguments))
    return np.array(values)


def value_of(loss, truth, probability):
    return keras.ops.convert_to_numpy(loss(truth, keras.ops.convert_to_tensor(probability)))


def gradient_of(loss, truth, probability):
    """Of the sum over the examples, by whichever backend runs."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda p: loss(truth, p).sum())(jax.numpy.asarray(probability)))
    if backend == "torch":
        import torch

        # Keras' torch backend may compute elsewhere than on the CPU
        p = keras.ops.convert_to_tensor(probability).clone().requires_grad_()
        return torch.autograd.grad(loss(truth, p).sum(), p)[0].cpu().numpy()
    import tensorflow

    p = tensorflow.Variable(probability)
    with tensorflow.GradientTape() as tape:
        total = tensorflow.reduce_sum(loss(truth, p))
    return tape.gradient(total, p).numpy()


def test_all_losses_are_tested():
    assert set(ONE_CLASS) == set(ONE)
    assert set(MANY_CLASSES) == set(MANY)
    assert set(ONE) | set(MANY) == set(LOSSES)


@pytest.mark.parametrize("name", ONE)
def test_losses_of_one_class_are_their_formulas_for_each_example(name):
    truth, probability = one_class(3)
    values = value_of(create_loss(name), truth, probability)
    assert values.shape == (3,)
    np.testing.assert_allclose(values, of_examples(ONE_CLASS[name], truth, probability), rtol=2e-5)


@pytest.mark.parametrize("name", MANY)
def test_losses_of_classes_are_their_formulas_and_leave_void_out(name):
    truth, probability = many_classes(5)
    loss = create_loss(name, classes=4)
    np.testing.assert_allclose(
        value_of(loss, truth, probability), of_examples(MANY_CLASSES[name], truth, probability), rtol=2e-5
    )
    elsewhere = np.where(truth == VOID, np.float32(0.9), probability)
    np.testing.assert_allclose(value_of(loss, truth, elsewhere), value_of(loss, truth, probability), rtol=1e-6)
    assert not gradient_of(loss, truth, probability)[np.broadcast_to(truth == VOID, probability.shape)].any()


@pytest.mark.parametrize("name", MANY)
def test_class_weights_weight_classes(name):
    truth, probability = many_classes(6)
    weights = (0.5, 2.0, 1.0, 4.0)
    values = value_of(create_loss(name, classes=4, class_weights=weights), truth, probability)
    np.testing.assert_allclose(values, of_examples(MANY_CLASSES[name], truth, probability, w=weights), rtol=2e-5)


def test_weights_of_background_and_subject():
    truth, probability = one_class(7)
    for name, gamma in (("bce", 0), ("focal", 2)):
        values = value_of(create_loss(name, class_weights=(0.75, 0.25)), truth, probability)
        expected = of_examples(bce_of, truth, probability, w=(0.75, 0.25), gamma=gamma)
        np.testing.assert_allclose(values, expected, rtol=2e-5)
    both = value_of(create_loss("bce+dice", class_weights=(0.75, 0.25)), truth, probability)
    expected = of_examples(bce_of, truth, probability, w=(0.75, 0.25)) + of_examples(dice_of, truth, probability)
    np.testing.assert_allclose(both, expected, rtol=2e-5)


def test_options_reach_the_formula():
    truth, probability = one_class(8)
    for name, options, formula, arguments in (
        ("focal", {"gamma": 0.5}, bce_of, {"gamma": 0.5}),
        ("dice", {"smooth": 0}, dice_of, {"s": 0}),
        ("iou", {"smooth": 50.0}, iou_of, {"s": 50}),
    ):
        values = value_of(create_loss(name, **options), truth, probability)
        np.testing.assert_allclose(values, of_examples(formula, truth, probability, **arguments), rtol=2e-5)


@pytest.mark.parametrize(("name", "classes"), [*((name, 1) for name in ONE), *((name, 4) for name in MANY)])
def test_gradients_are_differences_of_the_formula(name, classes):
    truth, probability = one_class(9, count=1, side=6) if classes == 1 else many_classes(9, count=1, side=5)
    formula = (ONE_CLASS if classes == 1 else MANY_CLASSES)[name]
    gradient = gradient_of(create_loss(name, classes=classes), truth, probability)
    random = np.random.default_rng(0)
    for _ in range(24):
        place = tuple(random.integers(0, size) for size in probability.shape)
        step = np.zeros(probability.shape)
        step[place] = 1e-6  # less than lies between two errors, so that their order stays
        ahead, behind = (of_examples(formula, truth, probability + sign * step)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((ahead - behind) / 2e-6, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize(("name", "classes"), [*((name, 1) for name in ONE), *((name, 3) for name in MANY)])
def test_certainty_right_or_wrong_is_finite_and_so_is_its_gradient(name, classes):
    loss = create_loss(name, classes=classes)
    certain = np.zeros((2, 12, 12, classes), np.float32)
    if classes == 1:
        certain[:, 3:8, 3:8] = 1
        truths = [certain, 1 - certain, certain * 0, certain * 0 + 1]
    else:
        certain[..., 0] = 1
        truths = [np.full((2, 12, 12, 1), label) for label in (0, 1, 2, VOID)]
    for truth in truths:
        assert np.isfinite(value_of(loss, truth, certain)).all()
        assert np.isfinite(gradient_of(loss, truth, certain)).all()
    np.testing.assert_allclose(value_of(loss, truths[0], certain), 0, atol=2e-6)
    assert (value_of(loss, truths[1], certain) > 0.5).all()
    if classes > 1:
        assert not value_of(loss, truths[3], certain).any()


def test_an_empty_mask_predicted_empty_costs_nothing():
    nothing = np.zeros((1, 8, 8, 1), np.float32)
    for name in ONE:
        assert value_of(create_loss(name), nothing, nothing)[0] == pytest.approx(0, abs=1e-5)


def test_lovasz_of_hard_masks_is_one_minus_their_iou():
    for seed in range(5):
        truth, probability = one_class(seed, soft=False)
        mask = np.rint(probability)
        shared, either = ((f(truth > 0, mask > 0)).sum(axis=(1, 2, 3)) for f in (np.logical_and, np.logical_or))
        np.testing.assert_allclose(value_of(create_loss("lovasz"), truth, mask), 1 - shared / either, atol=1e-6)


def test_lovasz_of_an_empty_mask_is_the_largest_probability():
    _, probability = one_class(4)
    nothing = np.zeros_like(probability)
    values = value_of(create_loss("lovasz"), nothing, probability)
    np.testing.assert_allclose(values, probability.max(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(values, of_examples(lovasz_of, nothing, probability), rtol=1e-6)
    assert (gradient_of(create_loss("lovasz"), nothing, probability) > 0).sum() == len(probability)


def test_lovasz_of_a_large_photo_keeps_its_precision():
    """Differences of Jaccard losses in float32 would be off in the third digit."""
    random = np.random.default_rng(1)
    truth = (random.random((1, 400, 400, 1)) < 0.3).astype(np.float32)
    probability = random.random(truth.shape).astype(np.float32)
    t, errors = truth.ravel() > 0, np.abs(truth - probability).ravel().astype(np.float64)
    order = np.argsort(-errors)
    left = t.sum() - np.cumsum(t[order])
    jaccard = 1 - left / (t.sum() + np.cumsum(~t[order]))
    expected = (errors[order] * np.diff(jaccard, prepend=0)).sum()
    assert value_of(create_loss("lovasz"), truth, probability)[0] == pytest.approx(expected, rel=1e-5)


def test_ssim_is_0_for_equal_masks_and_its_formula_for_others():
    truth, probability = one_class(10, count=2, side=20)
    np.testing.assert_allclose(value_of(ssim_loss, truth, truth), 0, atol=1e-6)
    values = value_of(ssim_loss, truth, probability)
    np.testing.assert_allclose(values, of_examples(ssim_of, truth, probability), rtol=2e-5)


def test_an_examples_loss_does_not_depend_on_its_batch():
    for name, classes in [*((name, 1) for name in ONE), *((name, 4) for name in MANY)]:
        truth, probability = one_class(11) if classes == 1 else many_classes(11)
        loss = create_loss(name, classes=classes)
        alone = [value_of(loss, truth[i : i + 1], probability[i : i + 1])[0] for i in range(3)]
        np.testing.assert_allclose(value_of(loss, truth, probability), alone, rtol=1e-6)


def test_outputs_are_added_up():
    truth, probability = one_class(12)
    loss = create_loss("bce")
    outputs = [keras.ops.convert_to_tensor(p) for p in (probability, 1 - probability, probability**2)]
    expected = sum(value_of(loss, truth, p) for p in (probability, 1 - probability, probability**2))
    summed = sum_over_outputs(loss)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(summed(truth, outputs)), expected, rtol=1e-6)
    np.testing.assert_allclose(value_of(summed, truth, probability), value_of(loss, truth, probability), rtol=1e-6)


@pytest.mark.parametrize(("name", "classes"), [("basnet", 1), ("lovasz", 3)])
def test_a_compiled_model_learns_with_it(name, classes):
    """In the backend's graph, photos of any size."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    outputs = keras.layers.Conv2D(classes, 1, activation="sigmoid" if classes == 1 else "softmax")(hidden)
    model = keras.Model(inputs, outputs)
    random = np.random.default_rng(0)
    photos = random.random((8, 16, 16, 3)).astype(np.float32)
    photos[:, 4:12, 4:12, 0] += 1
    truth = (photos[..., :1] > 1).astype(np.float32)
    if classes > 1:
        truth[:, :2] = VOID
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=create_loss(name, classes=classes))
    losses = model.fit(photos, truth, epochs=8, batch_size=4, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("hinge", {}, "there is no loss 'hinge'; there are: bce, ce, focal"),
        ("bce", {"classes": 11}, "'bce' is not for 11 classes; for that there are: ce, focal, dice"),
        ("ce", {}, "'ce' is not for one class; for that there are: bce, focal"),
        ("bce", {"gamma": 2}, "has no option gamma; it has: none"),
        ("focal", {"gamma": -1}, "gamma of the loss 'focal' is a number of at least 0, not -1"),
        ("dice", {"class_weights": (1, 2)}, "takes no class_weights for one class"),
        ("bce", {"class_weights": (1, 2, 3)}, "class_weights are two, of the background and of the subject"),
        ("ce", {"classes": 3, "class_weights": (1, 2)}, "class_weights are 3, one of each class"),
        ("ce", {"classes": 2, "class_weights": (1, math.nan)}, "at least 0 and not all 0"),
        ("ce", {"classes": 2, "class_weights": (0, 0)}, "not all 0"),
        ("ce", {"classes": 2, "class_weights": "median"}, "at least 0 and not all 0; not 'median'"),
        ("ce", {"classes": 2, "class_weights": 3}, "2, one of each class, at least 0 and not all 0; not 3"),
    ],
)
def test_what_cannot_be_is_refused(name, arguments, message):
    with pytest.raises(OptionsError, match=message):
        create_loss(name, **arguments)


def test_check_loss_accepts_what_create_loss_makes():
    for classes, names in ((1, ONE), (11, MANY)):
        for name in names:
            check_loss(name, classes)
    with pytest.raises(OptionsError, match="not for 11 classes"):
        check_loss("basnet", 11)


def test_shapes_that_would_broadcast_are_refused():
    truth, probability = many_classes(0)
    with pytest.raises(ModelShapeError, match="probability \\(B, H, W, 5\\), not"):
        create_loss("ce", classes=5)(truth, probability)
    with pytest.raises(ModelShapeError, match="classes=1"):
        create_loss("bce")(truth, probability)
    for other in (truth[:1], truth[:, :1], truth[:, :, :1]):
        with pytest.raises(ModelShapeError, match="the truth is \\(B, H, W, 1\\)"):
            create_loss("ce", classes=4)(other, probability)
    with pytest.raises(ModelShapeError, match="2 outputs: wrap the loss in training.losses.sum_over_outputs"):
        create_loss("ce", classes=4)(truth, [probability, probability])
