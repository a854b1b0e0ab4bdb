"""SharpMask's refinement on SqueezeNet in PyTorch, from the papers and the authors' Lua."""

import torch
from torch import nn
from torch.nn import functional

from tests.training.references.deeplab import DEVIATION, MEAN
from tests.training.references.encoders import SqueezeNet, probabilities


def _convolve(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


class Refinement(nn.Module):
    def __init__(self, channels, squeezed, k):
        super().__init__()
        self.horizontal1, self.horizontal2 = _convolve(channels, squeezed), _convolve(squeezed, k)
        self.horizontal3 = _convolve(k, k // 2)
        self.vertical1, self.vertical2 = _convolve(k, k), _convolve(k, k // 2)

    def forward(self, mask, features):
        horizontal = self.horizontal3(self.horizontal2(self.horizontal1(features).relu()).relu())
        return (horizontal + self.vertical2(self.vertical1(mask).relu())).relu()


class SharpMask(SqueezeNet):
    """Photos RGB in [0, 255] and clicks (B, C, H, W) → (B, classes, H, W)."""

    def __init__(self, classes=1, channels=3, k=32):
        super().__init__(channels)
        self.encode = nn.Conv2d(512, k, 1)
        self.refine1 = Refinement(512, 64, k)
        self.refine2 = Refinement(256, 64, k // 2)
        self.refine3 = Refinement(128, 64, k // 4)
        self.refine4 = Refinement(64, 32, k // 8)
        self.classify = _convolve(k // 16, classes)

    def forward(self, photo):
        mean, deviation = torch.zeros(photo.shape[1]), torch.ones(photo.shape[1])
        mean[:3], deviation[:3] = torch.tensor(MEAN), torch.tensor(DEVIATION)
        conv1, fire3, fire5, fire9 = super().forward(
            (photo / 255 - mean.to(photo)[:, None, None]) / deviation.to(photo)[:, None, None]
        )
        x = self.encode(fire9)
        for refine, features, finer in (
            (self.refine1, fire9, fire5),
            (self.refine2, fire5, fire3),
            (self.refine3, fire3, conv1),
            (self.refine4, conv1, photo),
        ):
            x = functional.interpolate(refine(x, features), finer.shape[2:], mode="bilinear", align_corners=False)
        return probabilities(self.classify(x))
