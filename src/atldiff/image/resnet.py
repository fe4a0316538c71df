"""ResNet-50 (He et al. 2015, table 1) as a frozen identity encoder: a face crop → one vector of 2048.

Layers and names are those of torchvision's ``resnet50``, whose weights fit; the stride lies in the 3×3 convolution
and the classifier is left out. Pictures are normalised as the weights expect it; the published inference leaves
that out.
"""

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from atldiff.errors import InputError

IMAGENET_WEIGHTS = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
"""torchvision's ImageNet weights."""

FEATURES = 2048

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut (He et al. 2015, figure 5 right)."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride > 1 or in_channels != channels:
            self.downsample.append(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(channels))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) → (B, C, H / stride, W / stride)."""
        hidden = F.relu(self.bn1(self.conv1(x_BCHW)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(self.bn3(self.conv3(hidden)) + self.downsample(x_BCHW))


class ResNet50(nn.Module):
    """The network up to its average pooling, without gradient and always in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "ResNet50":
        """Stays in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, picture_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) pictures in [0, 1] → (B, 2048)."""
        mean, deviation = (picture_B3HW.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
        hidden = F.relu(self.bn1(self.conv1((picture_B3HW - mean) / deviation)))
        hidden = F.max_pool2d(hidden, 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = stage(hidden)
        return hidden.mean(dim=(2, 3))

    def load_imagenet_weights(self, source: str) -> None:
        """Read weights in torchvision's names.

        Args:
            source: a ``.pth`` file, or an https address, which is downloaded once to torch's cache.

        Raises:
            InputError: there are no such weights, or they are not those of a ResNet-50.
        """
        try:
            if source.startswith("https://"):
                state = torch.hub.load_state_dict_from_url(source, map_location="cpu", weights_only=True)
            else:
                state = torch.load(Path(source), map_location="cpu", weights_only=True)
            state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
            self.load_state_dict(state)
        except (OSError, EOFError, RuntimeError, AttributeError, TypeError, pickle.UnpicklingError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"cannot load ResNet-50 from {source!r}: {reason} (expected torchvision's resnet50 as a .pth file or "
                "an https address; model.identity_encoder=small learns an encoder instead)"
            ) from error


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(in_channels, width, stride), *rest)
