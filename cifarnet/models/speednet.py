"""A small CNN that learns CIFAR-10 in few steps, on the ideas of the CIFAR-10 speed records.

Ideas by David Page ("How to train your ResNet", 2018: whitening, scaled logits, fast biases), tysam-code's hlb-CIFAR10 (2023)
and Keller Jordan (arXiv 2404.00498: frozen whitening of 2x2 patches, identity initialisation, GELU, the widths).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2  # side of the patches that the first layer whitens
WIDTHS = (64, 256, 256)
RIDGE = 5e-4  # added to the variances before their inverse root, so that faint directions are not blown up
BIAS_SPEED = 32.0  # a bias is stored divided by it, and so learns its square as fast at the same learning rate
FEATURE_SCALE = 0.5  # of the features, so that the logits grow slowly
STATISTICS_MOMENTUM = 0.4  # of BatchNorm's running statistics: few steps have to fill them


class Whitening(nn.Module):
    """2x2 patches of the image -> their principal components at variance 1, each with both signs: [B, 24, H-1, W-1].

    The filters come from training images (`fit`), are saved with the weights and do not learn; the bias does.
    """

    def __init__(self) -> None:
        super().__init__()
        size = 3 * PATCH**2
        self.weight = nn.Parameter(torch.empty(2 * size, 3, PATCH, PATCH), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(2 * size))
        nn.init.kaiming_normal_(self.weight)  # for where no training images are seen, as in `cifarnet complexity`

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 24, H-1, W-1]."""
        return F.conv2d(images, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Takes the filters from the covariance of all patches of `images`, float [N, 3, H, W] as training sees them."""
        size = 3 * PATCH**2
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [N, 3, H-1, W-1, 2, 2]
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, size).double()
        variances, directions = torch.linalg.eigh(patches.T.cov())  # a direction a column
        filters = (directions / (variances + RIDGE).sqrt()).T.reshape(size, 3, PATCH, PATCH)
        self.weight.copy_(torch.cat([filters, -filters]))


class FastNorm(nn.Module):
    """BatchNorm without scale (GELU's input keeps variance 1), whose bias learns fast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, momentum=STATISTICS_MOMENTUM, affine=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        return self.norm(x) + (BIAS_SPEED * self.bias).to(x.dtype)[:, None, None]


class Group(nn.Module):
    """Convolution, 2x2 max-pool, norm, GELU; convolution, norm, GELU: halves the side."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False), FastNorm(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), FastNorm(width)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.in_channels].data)  # the first maps begin as copies of their input

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, width, H/2, W/2]."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class SpeedNet(nn.Module):
    """Whitening, three groups, global max-pool: images [B, 3, H, W] (H, W >= 16) -> features [B, 256]."""

    num_features = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.whitening = Whitening()
        channels = len(self.whitening.weight)
        self.groups = nn.Sequential()
        for width in WIDTHS:
            self.groups.append(Group(channels, width))
            channels = width

    def fit_to(self, images: Tensor) -> None:
        """Sets what follows from the data: call before training with training images, normalised, [N, 3, H, W]."""
        self.whitening.fit(images)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 256]."""
        x = self.groups(F.gelu(self.whitening(images)))
        # Not amax: its backward looks for x == max, which a compiled step in bf16 has rounded and compares unrounded: 0 / 0.
        return FEATURE_SCALE * F.max_pool2d(x, x.shape[2:]).flatten(1)
