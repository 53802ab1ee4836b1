"""Augmentation of a whole batch on its device, each image with its own draw. No step waits for the device.

A policy is a list of transforms, in this order:

    none         nothing
    basic        crop with a padding of 4, horizontal flip
    alternate    shift by up to 2 pixels, the border reflected; each image is mirrored every other epoch
    report       basic, then colour jitter: brightness, contrast, saturation 0.8 to 1.2, hue -0.1 to 0.1
    autoaugment  basic, then AutoAugment's CIFAR-10 policy (autoaugment.py)

After any of them cutout may erase a square.

The definitions are torchvision's: RandomCrop, RandomHorizontalFlip, and ColorJitter on float tensors.
"""

import hashlib
import itertools

import torch
from torch import Tensor

from cifarnet.core.devices import send
from cifarnet.data.augment.autoaugment import autoaugment

POLICIES = ("none", "basic", "alternate", "report", "autoaugment")
PADDING = 4  # pixels of black around an image before the crop
SHIFT = 2  # pixels that `alternate` moves an image by, at most
DRAWS = 8  # uniform numbers that an image may use, whatever the policy
BLOCK = 64 * 32 * 32  # pixels worked on together on the CPU: their floats stay in a core's cache

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]: the op at each position
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of R, G, B


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


def jitter_draws(draws: Tensor) -> tuple[Tensor, Tensor]:
    """An order of the four ops and a factor for each, from uniform numbers; see `jitter_plan` for what comes out."""
    order = ORDERS[(draws[:, 3] * len(ORDERS)).long().clamp_(max=len(ORDERS) - 1)]
    factors = draws[:, 4:8] * torch.tensor([0.4, 0.4, 0.4, 0.2]) + torch.tensor([0.8, 0.8, 0.8, -0.1])
    return jitter_plan(order, factors)


def jitter_plan(order: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """The plan that `jitter_` follows: three blends before the hue and three after it, of which each image uses three.

    Brightness, contrast and saturation all are `f * image + (1 - f) * other`, where other is black, the mean grey or
    the grey image: with coefficients for (image, grey image, mean grey) one step serves all three, and (1, 0, 0) does
    nothing. So images with different orders go through the same steps, and none is moved or waits.

    Args:
        order: int64 [B, 4], the op at each position.
        factors: [B, 4], of brightness, contrast, saturation (around 1) and hue (-1/6 to 1/6, around 0).

    Returns:
        blends [B, 18], six times three coefficients; hue [B, 1].
    """
    factor = factors[:, :HUE].float()
    blend = torch.zeros(len(order), 4, 3)
    blend[:, :HUE, 0] = factor
    blend[:, HUE, 0] = 1  # its own step is not a blend
    blend[:, SATURATION, 1] = 1 - factor[:, SATURATION]
    blend[:, CONTRAST, 2] = 1 - factor[:, CONTRAST]
    blend = blend.gather(1, order[:, :, None].expand(-1, -1, 3))  # by position now

    before = order.eq(HUE).float().cumsum(1)[:, :, None] == 0
    nothing = torch.tensor([1.0, 0.0, 0.0])
    first = torch.where(before, blend, nothing)[:, :3]
    second = torch.where(before, nothing, blend)[:, 1:]
    return torch.cat([first, second], dim=1).flatten(1), factors[:, HUE:].float()


def jitter_(images: Tensor, blends: Tensor, hue: Tensor) -> None:
    """Colour jitter in place.

    Args:
        images: float32 [B, 3, H * W] in [0, 1].
        blends, hue: from `jitter_plan`.
    """
    steps = blends[:, :, None].split(3, dim=1)
    for step in steps[:3]:
        blend_(images, step)
    hue_(images, hue)
    for step in steps[3:]:
        blend_(images, step)


def blend_(images: Tensor, step: Tensor) -> None:
    """`a * image + b * grey + c * mean grey`, clamped to [0, 1], in place; step [B, 3, 1] holds (a, b, c)."""
    red, green, blue = images.unbind(1)
    own, grey_part, mean_part = step.unbind(1)
    grey = torch.mul(red, GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    mean = grey.mean(1, keepdim=True)
    grey.mul_(grey_part).add_(mean.mul_(mean_part))
    images.mul_(own[:, None]).add_(grey[:, None]).clamp_(0, 1)


def hue_(images: Tensor, shift: Tensor) -> None:
    """Turn the hue by `shift` [B, 1] of a full circle, -1/6 to 1/6, in place; saturation and value stay.

    The closed form of RGB -> HSV -> RGB: with the hue h in sixths of a circle, a channel whose pure colour lies at c
    (red 0, green 2, blue 4) is `min + chroma * clamp(2 - distance(h, c), 0, 1)`, distance taken around the circle.
    Comparisons write floats and a choice is a lerp by 0 or 1: `where` is 20 times slower on a CPU.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(red, green)
    torch.maximum(value, blue, out=value)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = value - low

    work = torch.empty_like(value)
    turn = (red - green).add_(chroma, alpha=4)  # where blue is the largest
    turn.lerp_((blue - red).add_(chroma, alpha=2), torch.eq(value, green, out=work))
    turn.lerp_(green - blue, torch.eq(value, red, out=work))
    turn.mul_(chroma.clamp(min=1e-12).reciprocal_()).add_(shift, alpha=6)  # -2 to 6; grey pixels: any, chroma is 0

    for channel, colour in ((red, 0), (green, 2), (blue, 4)):
        # 2 - distance(h, c) = ||h - c| - 3| - 1 as long as |h - c| <= 6
        near = torch.sub(turn, colour, out=work).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(low, chroma, near, out=channel)
