"""The encoders in PyTorch, from their papers, with the names that torchvision's layers have."""

import torch
from torch import nn
from torch.nn import functional


def probabilities(scores):
    """(B, classes, H, W): sigmoid for one class, softmax for more."""
    return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(dim=1)


class VGG16(nn.ModuleDict):
    """Configuration D's convolutions, Caffe's names, Caffe's rounding; gives pool1 … pool5."""

    def __init__(self, channels=3, base=64, first_padding=1):
        super().__init__()
        for block, (count, multiple) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)), start=1):
            for part in range(1, count + 1):
                padding = first_padding if (block, part) == (1, 1) else 1
                self[f"conv{block}_{part}"] = nn.Conv2d(channels, base * multiple, 3, padding=padding)
                channels = base * multiple

    def forward(self, x):
        pools = []
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            for part in range(1, count + 1):
                x = self[f"conv{block}_{part}"](x).relu()
            x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        return pools


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride, dilation, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        if shortcut:
            projection = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (self.bn3(self.conv3(x)) + shortcut).relu()


class ResNet(nn.Module):
    """Strides and dilations of (the first block, the others) of layer1 … layer4 are written out per output stride."""

    PLANS = {
        32: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)),
        16: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)),
        8: ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)),
    }

    def __init__(self, blocks=(3, 4, 6, 3), output_stride=16, channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (count, (stride, first, others)) in enumerate(
            zip(blocks, self.PLANS[output_stride], strict=True), start=1
        ):
            width = 32 << stage
            layers = [Bottleneck(channels, width, stride, first, shortcut=True)]
            layers += [Bottleneck(4 * width, width, 1, others, shortcut=False) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
            channels = 4 * width
        self.out_channels = channels

    def forward(self, x):
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _conv_norm_relu6(inputs, outputs, kernel, stride=1, groups=1, dilation=1):
    padding = dilation * (kernel - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride, dilation):
        super().__init__()
        wide = inputs * expansion
        layers = [] if expansion == 1 else [_conv_norm_relu6(inputs, wide, 1)]
        layers += [_conv_norm_relu6(wide, wide, 3, stride, groups=wide, dilation=dilation)]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Sequential):
    """One row per block: expansion, filters, and per output stride (16, 8) stride and dilation."""

    ROWS = (
        *((1, 16, (1, 1), (1, 1)),),
        *((6, 24, (2, 1), (2, 1)), (6, 24, (1, 1), (1, 1))),
        *((6, 32, (2, 1), (2, 1)), (6, 32, (1, 1), (1, 1)), (6, 32, (1, 1), (1, 1))),
        *((6, 64, (2, 1), (1, 1)), *((6, 64, (1, 1), (1, 2)),) * 3),
        *((6, 96, (1, 1), (1, 2)),) * 3,
        *((6, 160, (1, 1), (1, 2)), *((6, 160, (1, 2), (1, 4)),) * 2),
        *((6, 320, (1, 2), (1, 4)),),
    )

    def __init__(self, output_stride=16, channels=3):
        layers = [_conv_norm_relu6(channels, 32, 3, 2)]
        channels = 32
        for expansion, filters, *plans in self.ROWS:
            stride, dilation = plans[{16: 0, 8: 1}[output_stride]]
            layers.append(InvertedResidual(channels, filters, expansion, stride, dilation))
            channels = filters
        super().__init__(*layers)
        self.out_channels = channels


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


class SqueezeNet(nn.Module):
    """Version 1.1; gives conv1, fire3, fire5, fire9."""

    def __init__(self, channels=3):
        super().__init__()

        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 64, 3, 2), nn.ReLU(), pool()),
            *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
            *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
            *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        )

    def forward(self, x):
        seen = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in (1, 4, 7, 12):
                seen.append(x)
        return seen
