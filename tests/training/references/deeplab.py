"""DeepLabv3 in PyTorch, from the paper, with the names that torchvision's layers have."""

import torch
from torch import nn
from torch.nn import functional

from tests.training.references.encoders import MobileNetV2, ResNet, probabilities

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
ENCODERS = {
    "mobilenet-v2": MobileNetV2,
    "resnet-50": lambda *given: ResNet((3, 4, 6, 3), *given),
    "resnet-101": lambda *given: ResNet((3, 4, 23, 3), *given),
}


def _conv_norm_relu(inputs, outputs, kernel, dilation=1):
    padding = dilation * (kernel - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class ASPP(nn.Module):
    def __init__(self, channels, rates):
        super().__init__()
        whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(channels, 256, 1))
        branches = [_conv_norm_relu(channels, 256, 1), *(_conv_norm_relu(channels, 256, 3, rate) for rate in rates)]
        self.convs = nn.ModuleList([*branches, whole])
        self.project = nn.Sequential(*_conv_norm_relu(256 * 5, 256, 1), nn.Dropout(0.5))

    def forward(self, x):
        seen = [branch(x) for branch in self.convs]
        seen[-1] = functional.interpolate(seen[-1], x.shape[2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat(seen, dim=1))


class DeepLab(nn.Module):
    """Photos RGB in [0, 255] (B, C, H, W), further channels too → (B, classes, H, W)."""

    def __init__(self, encoder="mobilenet-v2", output_stride=16, classes=1, channels=3):
        super().__init__()
        self.backbone = ENCODERS[encoder](output_stride, channels)
        self.classifier = nn.Sequential(
            ASPP(self.backbone.out_channels, RATES[output_stride]),
            *_conv_norm_relu(256, 256, 3),
            nn.Conv2d(256, classes, 1),
        )

    def forward(self, photo):
        mean, deviation = torch.zeros(photo.shape[1]), torch.ones(photo.shape[1])
        mean[:3], deviation[:3] = torch.tensor(MEAN), torch.tensor(DEVIATION)
        x = (photo / 255 - mean.to(photo)[:, None, None]) / deviation.to(photo)[:, None, None]
        x = self.classifier(self.backbone(x))
        return probabilities(functional.interpolate(x, photo.shape[2:], mode="bilinear", align_corners=False))
