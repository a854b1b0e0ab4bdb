"""U-Net (Ronneberger et al. 2015) with 'same' padding and batch normalization; names as in milesial/Pytorch-UNet."""

import torch
import torch.nn.functional as F  # noqa: N812 – as the whole field writes it
from torch import nn


class DoubleConv(nn.Module):
    def __init__(self, inputs, outputs, middle=None):
        super().__init__()
        layers = []
        for before, after in ((inputs, middle or outputs), (middle or outputs, outputs)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, inputs, outputs, bilinear):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(inputs, outputs, inputs // 2)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = DoubleConv(inputs, outputs)

    def forward(self, deep, skip):
        deep = self.up(deep)
        rows, columns = (skip.shape[axis] - deep.shape[axis] for axis in (2, 3))
        # What is missing is shared between the two edges, the greater half at the end.
        deep = F.pad(deep, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.conv(torch.cat((skip, deep), dim=1))


class UNet(nn.Module):
    """(B, C, H, W) in [0, 255] → probabilities (B, classes, H, W)."""

    def __init__(self, channels=3, classes=1, base_filters=64, depth=4, upsampling="transposed"):
        super().__init__()
        bilinear = upsampling == "bilinear"
        widths = [base_filters * 2**level for level in range(depth + 1)]
        widths[-1] //= 2 if bilinear else 1
        self.depth = depth
        self.inc = DoubleConv(channels, widths[0])
        for level in range(1, depth + 1):
            self.add_module(f"down{level}", Down(widths[level - 1], widths[level]))
        for step in range(1, depth + 1):
            level = depth - step
            inputs, outputs = base_filters * 2 ** (level + 1), base_filters * 2**level
            self.add_module(f"up{step}", Up(inputs, outputs // 2 if bilinear and level else outputs, bilinear))
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(widths[0], classes, 1)})

    def forward(self, photo):
        levels = [self.inc(photo / 255)]
        for level in range(1, self.depth + 1):
            levels.append(getattr(self, f"down{level}")(levels[-1]))
        x = levels.pop()
        for step in range(1, self.depth + 1):
            x = getattr(self, f"up{step}")(x, levels.pop())
        scores = self.outc["conv"](x)
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)
