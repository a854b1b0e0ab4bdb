"""FCN in PyTorch, from the paper and the authors' Caffe models: padding 100, crops at 5 and 9, 19, 27 and 31."""

import torch
from torch import nn

from tests.training.references.encoders import VGG16, probabilities

MEAN = (122.67892, 116.66877, 104.00699)
#: Where the mask begins in what the last transposed convolution gives.
FIRST = {32: 19, 16: 27, 8: 31}


class FCN(VGG16):
    """Photos RGB in [0, 255] (B, C, H, W) → (B, classes, H, W)."""

    def __init__(self, stride, classes=1, channels=3, base=64, head=4096):
        super().__init__(channels, base, first_padding=100)
        self.stride = stride
        self["fc6"] = nn.Conv2d(8 * base, head, 7)
        self["fc7"] = nn.Conv2d(head, head, 1)
        self["score_fr"] = nn.Conv2d(head, classes, 1)

        def enlarge(factor):
            return nn.ConvTranspose2d(classes, classes, 2 * factor, factor, bias=False)

        if stride <= 16:
            self["upscore2"] = enlarge(2)
            self["score_pool4"] = nn.Conv2d(8 * base, classes, 1)
        if stride == 8:
            self["upscore_pool4"] = enlarge(2)
            self["score_pool3"] = nn.Conv2d(4 * base, classes, 1)
        # Fixed: each class by itself, a tent over two pixels per axis.
        tent = 1 - (torch.arange(2 * stride) - (stride - 0.5)).abs() / stride
        kernel = torch.outer(tent, tent).expand(classes, 1, -1, -1).clone()
        self.register_buffer("last", kernel, persistent=False)

    def forward(self, photo):
        height, width = photo.shape[2:]
        mean = torch.zeros(photo.shape[1])
        mean[:3] = torch.tensor(MEAN)
        _, _, pool3, pool4, pool5 = super().forward(photo - mean.to(photo)[:, None, None])
        dropout = nn.functional.dropout
        x = dropout(self["fc6"](pool5).relu(), 0.5, self.training)
        x = dropout(self["fc7"](x).relu(), 0.5, self.training)
        x = self["score_fr"](x)
        if self.stride <= 16:
            x = self["upscore2"](x)
            x = x + self["score_pool4"](pool4)[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
        if self.stride == 8:
            x = self["upscore_pool4"](x)
            x = x + self["score_pool3"](pool3)[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
        x = nn.functional.conv_transpose2d(x, self.last, stride=self.stride, groups=x.shape[1])
        first = FIRST[self.stride]
        return probabilities(x[:, :, first : first + height, first : first + width])
