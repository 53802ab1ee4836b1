"""Augmentation of a whole batch at a time, each image with its own draw."""

import hashlib

import torch
from torch import Tensor

POLICIES = ("none", "basic", "report", "autoaugment")
PADDING = 4  # pixels of black around an image before the crop
DRAWS = 8  # uniform numbers an image may use, whatever the policy


def generator_for(purpose: str, seed: int, epoch: int) -> torch.Generator:
    """A CPU generator that depends on the three alone, so no generator state has to be saved."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(count: int, seed: int, epoch: int) -> Tensor:
    """Uniform numbers in [0, 1) for each position of an epoch: float32 [count, 8], on the CPU."""
    return torch.rand(count, DRAWS, generator=generator_for("augment", seed, epoch))


def apply(policy: str, images: Tensor, draws: Tensor) -> Tensor:
    """Augment uint8 [B, 3, H, W] by draws [B, 8] (on the CPU); float32 in [0, 1]."""
    if policy == "none":
        return images.to(torch.float32).div_(255)
    if policy not in ("none", "basic"):
        raise NotImplementedError(policy)
    offset = (draws[:, :2] * (2 * PADDING + 1)).to(torch.int64).clamp_(max=2 * PADDING)
    images = crop_flip(images, offset.to(images.device), (draws[:, 2] < 0.5).to(images.device))
    return images.to(torch.float32).div_(255)


def crop_flip(images: Tensor, offset: Tensor, flip: Tensor) -> Tensor:
    """Cut [H, W] out of each image padded by 4 black pixels, then mirror where `flip`."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    rows = offset[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = offset[:, 1:] + torch.where(flip[:, None], columns.flip(0), columns)
    index = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]
    index = index.view(count, 1, -1).expand(-1, 3, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)
