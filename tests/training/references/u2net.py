"""U²-Net (Qin et al. 2020, figures 2 and 5, table 1); names as in xuebinqin/U-2-Net."""

import torch
import torch.nn.functional as F  # noqa: N812 – as the whole field writes it
from torch import nn

#: Table 1: features inside and out of en_1 … en_6, de_5 … de_1.
FULL = ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512))
FULL += ((256, 512), (128, 256), (64, 128), (32, 64), (16, 64))
LITE = ((16, 64),) * 11


def match(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def pool(x):
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, dilation=1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.bn_s1(self.conv_s1(x)).relu()


class RSU(nn.Module):
    """RSU-7 … RSU-4: L encoding units, the last dilated by 2, L − 1 decoding ones."""

    def __init__(self, levels, inputs, middle, outputs):
        super().__init__()
        self.levels = levels
        self.rebnconvin = Unit(inputs, outputs)
        self.rebnconv1 = Unit(outputs, middle)
        for level in range(2, levels):
            self.add_module(f"rebnconv{level}", Unit(middle, middle))
        self.add_module(f"rebnconv{levels}", Unit(middle, middle, 2))
        for level in range(levels - 1, 0, -1):
            self.add_module(f"rebnconv{level}d", Unit(2 * middle, outputs if level == 1 else middle))

    def forward(self, x):
        entry = self.rebnconvin(x)
        features = [self.rebnconv1(entry)]
        for level in range(2, self.levels):
            features.append(getattr(self, f"rebnconv{level}")(pool(features[-1])))
        x = getattr(self, f"rebnconv{self.levels}")(features[-1])
        for level in range(self.levels - 1, 0, -1):
            skip = features[level - 1]
            x = getattr(self, f"rebnconv{level}d")(torch.cat((match(x, skip), skip), dim=1))
        return x + entry


class RSU4F(nn.Module):
    """Four encoding units dilated by 1, 2, 4, 8 and three decoding ones by 4, 2, 1, all of one size."""

    def __init__(self, inputs, middle, outputs):
        super().__init__()
        self.rebnconvin = Unit(inputs, outputs)
        self.rebnconv1 = Unit(outputs, middle, 1)
        self.rebnconv2 = Unit(middle, middle, 2)
        self.rebnconv3 = Unit(middle, middle, 4)
        self.rebnconv4 = Unit(middle, middle, 8)
        self.rebnconv3d = Unit(2 * middle, middle, 4)
        self.rebnconv2d = Unit(2 * middle, middle, 2)
        self.rebnconv1d = Unit(2 * middle, outputs, 1)

    def forward(self, x):
        entry = self.rebnconvin(x)
        first = self.rebnconv1(entry)
        second = self.rebnconv2(first)
        third = self.rebnconv3(second)
        x = self.rebnconv3d(torch.cat((self.rebnconv4(third), third), dim=1))
        x = self.rebnconv2d(torch.cat((x, second), dim=1))
        return self.rebnconv1d(torch.cat((x, first), dim=1)) + entry


class U2Net(nn.Module):
    """(B, 3 + E, H, W) in [0, 255] → seven probabilities (B, classes, H, W), the fused one first."""

    def __init__(self, channels=3, classes=1, filters=FULL, width=1.0):
        super().__init__()
        filters = [tuple(max(1, round(count * width)) for count in pair) for pair in filters]
        down, up = filters[:6], filters[6:]
        inputs = channels
        for stage, (middle, outputs) in enumerate(down, start=1):
            block = RSU(8 - stage, inputs, middle, outputs) if stage < 5 else RSU4F(inputs, middle, outputs)
            self.add_module(f"stage{stage}", block)
            inputs = outputs
        sides = [inputs]
        for stage, (middle, outputs) in zip((5, 4, 3, 2, 1), up, strict=True):
            inputs += down[stage - 1][1]
            block = RSU4F(inputs, middle, outputs) if stage == 5 else RSU(8 - stage, inputs, middle, outputs)
            self.add_module(f"stage{stage}d", block)
            inputs = outputs
            sides.append(outputs)
        for stage, features in enumerate(reversed(sides), start=1):
            self.add_module(f"side{stage}", nn.Conv2d(features, classes, 3, padding=1))
        self.outconv = nn.Conv2d(6 * classes, classes, 1)
        extra = channels - 3
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406] + [0.0] * extra), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225] + [1.0] * extra), persistent=False)

    def forward(self, photo):
        x = (photo / 255 - self.mean[:, None, None]) / self.deviation[:, None, None]
        features = [self.stage1(x)]
        for stage in range(2, 7):
            features.append(getattr(self, f"stage{stage}")(pool(features[-1])))
        x = features.pop()
        decoded = [x]
        for stage in range(5, 0, -1):
            skip = features.pop()
            x = getattr(self, f"stage{stage}d")(torch.cat((match(x, skip), skip), dim=1))
            decoded.append(x)
        sides = [match(getattr(self, f"side{6 - index}")(x), photo) for index, x in enumerate(decoded)][::-1]
        scores = [self.outconv(torch.cat(sides, dim=1)), *sides]
        return [score.sigmoid() if score.shape[1] == 1 else score.softmax(dim=1) for score in scores]
