"""Colour jitter of a whole batch, each image with its own order and factors: torchvision's ColorJitter on float tensors."""

import itertools

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]: the op at each position
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of R, G, B


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
