"""torchvision's ResNet-50 by its own names, for machines whose torchvision does not import."""

import functools
import unittest.mock


def resnet50(*, in_channels):
    """A torch module whose state dict is that of torchvision's resnet50 without `fc`."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = None
            if stride != 1 or inputs != 4 * width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
                )

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = torch.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.pool = nn.MaxPool2d(3, 2, 1)
            inputs = 64
            for stage, depth in enumerate((3, 4, 6, 3)):
                blocks = []
                for index in range(depth):
                    stride = 2 if stage and index == 0 else 1
                    blocks.append(Bottleneck(inputs, 64 * 2**stage, stride))
                    inputs = 256 * 2**stage
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

        def forward(self, x):
            x = self.pool(torch.relu(self.bn1(self.conv1(x))))
            for stage in range(1, 5):
                x = getattr(self, f"layer{stage}")(x)
            return x.mean((2, 3))

    return ResNet()


@functools.cache
def import_torchvision():
    """Imports torchvision, also where it comes without its compiled operators.

    ResNets need none of them, but it registers what their results look like, which fails. timm
    and transformers import it too.
    """
    import torch

    register = torch.library.register_fake

    def skip_absent(name, *args, **kwargs):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *args, **kwargs)

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        with unittest.mock.patch.object(torch.library, "register_fake", skip_absent):
            import torchvision
    return torchvision


def from_libraries(*, in_channels):
    """ResNet-50 of torchvision and of timm, without classifiers."""
    import torch

    model = import_torchvision().models.resnet50()
    model.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
    model.fc = torch.nn.Identity()
    import timm

    return model, timm.create_model("resnet50", num_classes=0, in_chans=in_channels)
