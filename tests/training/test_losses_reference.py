"""Losses and their gradients against PyTorch's and torchmetrics', on real photos.

These are not installed everywhere: pip install torch torchmetrics. Where PyTorch has no such loss (Lovász,
SSIM with zeros outside), test_losses.py has the formula.
"""

import keras
import numpy as np
import pytest

from tests.training.references.metrics_data import duts_pairs
from tests.training.test_losses import gradient_of, value_of
from training.losses import create_loss
from training.losses.structure import ssim_loss

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional

if keras.backend.backend() == "torch":  # Keras hands a tensor to numpy in a way that numpy 2.3 no longer likes
    pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


def photos():
    """Truth and probability of 32 photos, cut to one size: float32 (32, 64, 64, 1)."""
    pairs = duts_pairs(32, kinds=("noisy",), step=3)
    truth, probability = (np.stack([pair[i][:64, :64] for pair in pairs])[..., None] for i in (1, 2))
    return truth.astype(np.float32), probability.clip(1e-4, 1 - 1e-4).astype(np.float32)


def class_photos():
    """Five classes, by position within the subject, a rim of void, and probabilities of a softmax."""
    truth, probability = photos()
    rows, columns = np.indices(truth.shape[1:3])
    quarter = (rows > 30) * 2 + (columns > 30)
    numbers = np.where(truth[..., 0] > 0, quarter + 1, 0)[..., None]
    numbers[:, :4] = 255
    logits = np.random.default_rng(0).normal(0, 1, (*truth.shape[:3], 5)) + 3 * (quarter[..., None] + 1 == range(5))
    logits[..., 1:] *= probability
    shares = np.exp(logits)
    return numbers, (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)


def assert_is(loss, reference, truth, probability):
    """Values and gradients of ours, whatever its backend, and of ``reference(p)`` in float64."""
    p = torch.from_numpy(probability.astype(np.float64)).requires_grad_()
    expected = reference(p)
    np.testing.assert_allclose(value_of(loss, truth, probability), expected.detach(), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(expected.sum(), p)
    scale = float(gradient.abs().max())
    np.testing.assert_allclose(gradient_of(loss, truth, probability) / scale, gradient / scale, rtol=0, atol=5e-5)


def test_binary_cross_entropy_and_its_weights():
    truth, probability = photos()
    t = torch.from_numpy(truth.astype(np.float64))

    def reference(p, weights=(1, 1)):
        weight = torch.where(t > 0, weights[1], weights[0])
        return functional.binary_cross_entropy(p, t, weight=weight, reduction="none").mean(dim=(1, 2, 3))

    assert_is(create_loss("bce"), reference, truth, probability)
    weighted = create_loss("bce", class_weights=(0.5, 3))
    assert_is(weighted, lambda p: reference(p, (0.5, 3.0)), truth, probability)


def test_cross_entropy_its_weights_and_void():
    truth, probability = class_photos()
    t = torch.from_numpy(truth).flatten()
    weights = (0.2, 1.0, 1.5, 2.0, 3.0)

    def reference(p, weight=None):
        weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
        terms = functional.nll_loss(p.flatten(0, 2).log(), t, weight=weight, ignore_index=255, reduction="none")
        return terms.view(32, -1).sum(dim=1) / (t != 255).view(32, -1).sum(dim=1)

    assert_is(create_loss("ce", classes=5), reference, truth, probability)
    weighted = create_loss("ce", classes=5, class_weights=weights)
    assert_is(weighted, lambda p: reference(p, weights), truth, probability)


def test_soft_dice_and_iou_of_certain_masks_are_those_of_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    truth, probability = photos()
    there = truth.sum(axis=(1, 2, 3)) > 0
    truth, mask = truth[there], np.rint(probability[there])
    for name, metric in (("dice", metrics.binary_f1_score), ("iou", metrics.binary_jaccard_index)):
        values = value_of(create_loss(name, smooth=0), truth, mask)
        pairs = zip(torch.from_numpy(mask), torch.from_numpy(truth).int(), strict=True)
        np.testing.assert_allclose(values, [1 - float(metric(p, t)) for p, t in pairs], atol=1e-6)


def test_ssim_is_the_blurred_convolution_of_basnet():
    """A grouped 11×11 convolution with zeros outside, as the code that BASNet took its SSIM from."""
    truth, probability = photos()
    t = torch.from_numpy(truth.astype(np.float64)).movedim(-1, 1)
    bell = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (torch.outer(bell, bell) / bell.sum() ** 2)[None, None]

    def blur(values):
        return functional.conv2d(values, window, padding=5)

    def reference(p):
        p = p.movedim(-1, 1)
        mt, mp = blur(t), blur(p)
        vt, vp, cov = blur(t * t) - mt**2, blur(p * p) - mp**2, blur(t * p) - mt * mp
        index = (2 * mt * mp + 1e-4) * (2 * cov + 9e-4) / ((mt**2 + mp**2 + 1e-4) * (vt + vp + 9e-4))
        return 1 - index.mean(dim=(1, 2, 3))

    assert_is(ssim_loss, reference, truth, probability)


def test_lovasz_follows_automatic_differentiation_of_the_sorted_errors():
    """Berman's way: the gradient of the Jaccard index taken as differences, in float64."""
    truth, probability = photos()
    # the rank of each probability in its place: where two errors are equal, gradients are a matter of taste
    ranks = probability.reshape(32, -1).argsort(axis=1, kind="stable").argsort(axis=1)
    probability = ((4 * ranks + 1) / (4 * ranks.shape[1])).astype(np.float32).reshape(truth.shape)
    t = torch.from_numpy(truth.astype(np.float64)).flatten(1)

    def reference(p):
        errors, order = torch.sort((t - p.flatten(1)).abs(), dim=1, descending=True)
        true = t.gather(1, order)
        left = true.sum(dim=1, keepdim=True) - true.cumsum(dim=1)
        union = true.sum(dim=1, keepdim=True) + (1 - true).cumsum(dim=1)
        jaccard = 1 - left / union
        return (errors * torch.diff(jaccard, prepend=torch.zeros(len(t), 1), dim=1)).sum(dim=1)

    assert_is(create_loss("lovasz"), reference, truth, probability)
