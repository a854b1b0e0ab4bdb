"""FC-DenseNet (Jégou et al. 2017, tables 1 and 2), with the constants of the authors' code for Lasagne.

That has no names for its weights; they are called here as ours are, with a dot before the variable.
"""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 – as the whole field writes it

EPSILON = 1e-4


class FCDenseNet(nn.Module):
    """(B, C, H, W) in [0, 255] → probabilities (B, classes, H, W)."""

    def __init__(self, channels=3, classes=1, growth_rate=16, layers=(5,) * 11, first_filters=48, dropout=0.2):
        super().__init__()
        self.layers, self.dropout = layers, dropout
        self.poolings = len(layers) // 2
        self.first_conv = nn.Conv2d(channels, first_filters, 3, padding=1)
        features = first_filters
        skips = []
        for level in range(self.poolings):
            features = self._block(f"down{level}", features, growth_rate, layers[level])
            skips.append(features)
            self._layer(f"down{level}_transition", features, features, 1)
        self._block("bottom", features, growth_rate, layers[self.poolings])
        for step in range(1, self.poolings + 1):
            level = self.poolings - step
            made = growth_rate * layers[self.poolings + step - 1]
            self.add_module(f"up{level}_upsample", nn.ConvTranspose2d(made, made, 3, stride=2))
            features = self._block(f"up{level}", made + skips[level], growth_rate, layers[self.poolings + step])
        self.classify = nn.Conv2d(features, classes, 1)

    def _layer(self, name, inputs, outputs, kernel):
        self.add_module(f"{name}_norm", nn.BatchNorm2d(inputs, eps=EPSILON))
        self.add_module(f"{name}_conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))

    def _block(self, name, features, growth_rate, layers):
        for index in range(1, layers + 1):
            self._layer(f"{name}_layer{index}", features, growth_rate, 3)
            features += growth_rate
        return features

    def _apply_layer(self, name, x):
        x = getattr(self, f"{name}_conv")(getattr(self, f"{name}_norm")(x).relu())
        return F.dropout(x, self.dropout, self.training)

    def _apply_block(self, name, x, layers):
        new = []
        for index in range(1, layers + 1):
            new.append(self._apply_layer(f"{name}_layer{index}", x))
            x = torch.cat((x, new[-1]), dim=1)
        return x, torch.cat(new, dim=1)

    def forward(self, photo):
        x = self.first_conv(photo / 255)
        skips = []
        for level in range(self.poolings):
            x, _ = self._apply_block(f"down{level}", x, self.layers[level])
            skips.append(x)
            x = F.max_pool2d(self._apply_layer(f"down{level}_transition", x), 2)
        x, new = self._apply_block("bottom", x, self.layers[self.poolings])
        for step in range(1, self.poolings + 1):
            level = self.poolings - step
            skip = skips[level]
            large = getattr(self, f"up{level}_upsample")(new)
            top, left = ((large.shape[axis] - skip.shape[axis]) // 2 for axis in (2, 3))
            centered = large[:, :, top : top + skip.shape[2], left : left + skip.shape[3]]
            x, new = self._apply_block(
                f"up{level}", torch.cat((centered, skip), dim=1), self.layers[self.poolings + step]
            )
        scores = self.classify(x)
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)
