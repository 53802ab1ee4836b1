"""Augmentation of a whole batch on its device, each image with its own draw. No step waits for the device.

A policy is a list of transforms, in this order:

    none         nothing
    basic        crop with a padding of 4, horizontal flip
    alternate    shift by up to 2 pixels, the border reflected; each image is mirrored every other epoch
    report       basic, then colour jitter (colour_jitter.py): brightness, contrast, saturation 0.8 to 1.2, hue -0.1 to 0.1
    autoaugment  basic, then AutoAugment's CIFAR-10 policy (autoaugment.py)

After any of them cutout may erase a square.

The definitions are torchvision's: RandomCrop and RandomHorizontalFlip.
"""

import hashlib

import torch
from torch import Tensor

from cifarnet.core.devices import send
from cifarnet.data.augment.autoaugment import autoaugment
from cifarnet.data.augment.colour_jitter import jitter_, jitter_draws

POLICIES = ("none", "basic", "alternate", "report", "autoaugment")
PADDING = 4  # pixels of black around an image before the crop
SHIFT = 2  # pixels that `alternate` moves an image by, at most
DRAWS = 8  # uniform numbers that an image may use, whatever the policy
BLOCK = 64 * 32 * 32  # pixels worked on together on the CPU: their floats stay in a core's cache


def generator_for(purpose: str, seed: int, epoch: int) -> torch.Generator:
    """A CPU generator that depends on the three alone, so no generator state has to be saved."""
    digest = hashlib.blake2b(f"{purpose}/{seed}/{epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(count: int, seed: int, epoch: int, policy: str = "report", cutout: int = 1) -> Tensor:
    """Uniform numbers in [0, 1) for each position of an epoch: float32 [count, 8 + 2], on the CPU; the last two are cutout's.

    What `policy` and `cutout` do not use is not drawn and 0. The 8 come one image after the other from one generator: a
    policy that uses some of them has them all drawn, so that the others' pixels do not depend on it.
    """
    draws = torch.zeros(count, DRAWS + 2)
    if policy != "none":
        draws[:, :DRAWS] = torch.rand(count, DRAWS, generator=generator_for("augment", seed, epoch))
    if cutout:
        draws[:, DRAWS:] = torch.rand(count, 2, generator=generator_for("cutout", seed, epoch))
    return draws


def augment(policy: str, images: Tensor, draws: Tensor, scale: Tensor, shift: Tensor, cutout: int = 0) -> Tensor:
    """Augment a batch, normalise it, and cut a square of `cutout` pixels out of each image.

    Args:
        policy: a name of `POLICIES`.
        images: uint8 [B, 3, H, W], on any device.
        draws: float32 [B, 8 + 2] in [0, 1), on the CPU.
        scale, shift: float32 [3, 1]; the result is `pixels * scale + shift` of pixels in [0, 1].

    Returns:
        float32 [B, 3, H, W] on the device of the images.
    """
    moves, jitter, centres = choices(policy, draws, cutout, images.device)
    if policy == "alternate":
        top, left, flip = moves
        images = shift_flip(images, top.long() - SHIFT, left.long() - SHIFT, flip)
    elif policy != "none":
        top, left, flip = moves
        images = crop_flip(images, top.long(), left.long(), flip)
    if policy == "autoaugment":
        images = autoaugment(images, draws[:, 3:DRAWS])

    ready = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    block = len(images) if images.device.type != "cpu" else max(1, BLOCK // images[0, 0].numel())
    parts = [tensor.split(block) for tensor in (images.flatten(2), ready.flatten(2), *jitter)]
    for pixels, x, *plan in zip(*parts, strict=True):
        x.copy_(pixels).div_(255)
        if plan:
            jitter_(x, *plan)
        torch.addcmul(shift, x, scale, out=x)
    if cutout:
        cut_out_(ready, centres[0], cutout)
    return ready


def choices(
    policy: str, draws: Tensor, cutout: int, device: torch.device
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The choices that the draws stand for, on `device` in one copy; what is off is neither worked out nor sent.

    Returns:
        top, left and flip, [B, 1] each, unless the policy is none; blends [B, 18] and hue [B, 1] of `report`; cutout's
        centres [B, 2].
    """
    moves = crop_flip_draws(draws, SHIFT if policy == "alternate" else PADDING) if policy != "none" else ()
    jitter = jitter_draws(draws) if policy == "report" else ()
    centres = (draws[:, DRAWS:],) if cutout else ()
    numbers = [*moves, *jitter, *centres]
    if not numbers:
        return [], [], []
    sent = list(send(torch.cat(numbers, dim=1), device).split([part.shape[1] for part in numbers], dim=1))
    end = len(moves) + len(jitter)
    return sent[: len(moves)], sent[len(moves) : end], sent[end:]


def alternating_flips(order: Tensor, seed: int, epoch: int) -> Tensor:
    """The number that decides the flip of each position, so that an image is mirrored every other epoch.

    Of two epochs in a row one shows an image as it is and one its mirror image (Jordan, arXiv 2404.00498); a coin of
    the image, not of the epoch, says which comes first.

    Args:
        order: int64 [N], the image at each position of the epoch.

    Returns:
        float32 [N]: 0.25 where the image is mirrored, else 0.75; the third column of `draw`.
    """
    coins = torch.rand(len(order), generator=generator_for("flip", seed, 0))[order] < 0.5
    return torch.where(coins ^ (epoch % 2 == 1), 0.25, 0.75)


def crop_flip_draws(draws: Tensor, padding: int = PADDING) -> tuple[Tensor, Tensor, Tensor]:
    """Top and left edge of the crop, 0 to 2 padding, and the flip, 0 or 1: three float [B, 1]."""
    edges = (draws[:, :2] * (2 * padding + 1)).floor().clamp_(max=2 * padding)
    return edges[:, :1], edges[:, 1:], (draws[:, 2:3] < 0.5).float()


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """Cut [H, W] out of each image padded with 4 black pixels, then mirror it where `flip` is not 0.

    Args:
        images: [B, 3, H, W].
        top, left: int64 [B, 1], 0 to 8; 4 and 4 is the middle.
        flip: [B, 1].
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PADDING,) * 4)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flip != 0, columns.flip(0), columns)
    index = rows[:, :, None] * (width + 2 * PADDING) + columns[:, None, :]
    index = index.view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


def shift_flip(images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Show each image `down` and `right` pixels further, its border reflected, then mirror it where `flip` is not 0.

    Args:
        images: [B, 3, H, W].
        down, right: int64 [B, 1], less than H and W either way.
        flip: [B, 1].
    """
    count, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device)
    rows = reflect(down + torch.arange(height, device=images.device), height)
    columns = reflect(right + torch.where(flip != 0, columns.flip(0), columns), width)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, index).view(images.shape)


def reflect(index: Tensor, length: int) -> Tensor:
    """Indices beyond 0 and length - 1 turn back there, the edge itself not repeated: -1 is 1."""
    last = length - 1
    return last - (last - index.abs()).abs()


def cut_out_(images: Tensor, centres: Tensor, side: int) -> None:
    """Cutout (DeVries and Taylor, arXiv 1708.04552): zeroes a square of each image, in place.

    As in the authors' code the centre lies anywhere in the image, so that the square may reach over its edge, and the
    images are normalised already: 0 is the mean colour.

    Args:
        images: float [B, 3, H, W].
        centres: row and column in [0, 1) of the height and the width, [B, 2].
        side: of the square, pixels.
    """
    inside = []
    for axis, length in ((0, images.shape[2]), (1, images.shape[3])):
        first = (centres[:, axis : axis + 1] * length).long().clamp_(max=length - 1) - side // 2
        pixels = torch.arange(length, device=images.device)
        inside.append((pixels >= first) & (pixels < first + side))
    images.masked_fill_((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)
