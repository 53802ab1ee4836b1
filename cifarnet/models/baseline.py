"""The report's baseline CNN (Table 2.1): three 3x3 valid convolutions, two max-pools, one hidden layer."""

import torch.nn.functional as F
from torch import Tensor, nn


class Baseline(nn.Module):
    """Convolutions 32, 64, 64 and a hidden layer of 64: 122,570 parameters with a 10-class linear head.

    forward: images [B, 3, 32, 32] -> features [B, 64].
    """

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.fc = nn.Linear(64 * 4 * 4, 64)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, 32, 32] -> [B, 64]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # [B, 32, 15, 15]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [B, 64, 6, 6]
        x = F.relu(self.conv3(x))  # [B, 64, 4, 4]
        return F.relu(self.fc(x.flatten(1)))
