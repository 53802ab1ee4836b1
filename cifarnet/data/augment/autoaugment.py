"""AutoAugment's CIFAR-10 policy on a whole batch, each image with its own sub-policy.

Source: E. Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, 2019, table 7 (arXiv:1805.09501), with
torchvision's definitions of the operations on uint8 tensors (nearest neighbour, black outside the image).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample

from cifarnet.core.devices import send

# 25 sub-policies of two steps: operation, probability, level 0 to 9 (None: it has no magnitude)
SUBPOLICIES: tuple[tuple[tuple[str, float, int | None], tuple[str, float, int | None]], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)
SIGNED = {"ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}


def autoaugment(images: Tensor, draws: Tensor) -> Tensor:
    """Apply to each image the two steps of a sub-policy.

    Args:
        images: uint8 [B, 3, H, W] on any device; changed in place.
        draws: float32 [B, 5] in [0, 1) on the CPU: sub-policy, does step 1 apply, does step 2, sign 1, sign 2.

    Returns:
        the same tensor.
    """
    choice = (draws[:, 0] * len(SUBPOLICIES)).long().clamp_(max=len(SUBPOLICIES) - 1)
    for step in range(2):
        chance, sign = draws[:, 1 + step], torch.where(draws[:, 3 + step] < 0.5, -1.0, 1.0)
        names, indices, sizes = [], [], []  # of the operations that some image gets; an image gets one at most
        for name in OPERATIONS:
            probability, levels = TABLES[step, name]
            index = (chance <= probability[choice]).nonzero().flatten()  # on the CPU: the device is not waited for
            if len(index) == 0:
                continue
            magnitude = magnitudes(name, images.shape[-2:])[levels[choice[index]]]
            names.append(name)
            indices.append(index)
            sizes.append(magnitude * sign[index] if name in SIGNED else magnitude)
        if names:
            parts = [len(index) for index in indices]
            index, magnitude = (send(torch.cat(tensors), images.device).split(parts) for tensors in (indices, sizes))
            for name, i, m in zip(names, index, magnitude, strict=True):
                images.index_copy_(0, i, OPERATIONS[name](images[i], m.view(-1, 1, 1, 1)))
    return images


def magnitudes(name: str, size: torch.Size) -> Tensor:
    """The magnitude of each level 0 to 9: float32 [10]."""
    height, width = size
    if name == "Posterize":
        return 8 - (torch.arange(10) / (9 / 4)).round()  # bits that stay
    if name in ("TranslateX", "TranslateY"):  # whole pixels
        return torch.linspace(0, 150 / 331 * (width if name == "TranslateX" else height), 10).trunc()
    top = {"ShearY": 0.3, "Rotate": 30.0}.get(name, 0.9)
    return torch.linspace(255, 0, 10) if name == "Solarize" else torch.linspace(0, top, 10)


def blend(images: Tensor, other: Tensor | float, magnitude: Tensor) -> Tensor:
    """`(1 + m) * images - m * other`, as uint8 (rounded down)."""
    return ((1 + magnitude) * images + -magnitude * other).clamp_(0, 255).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)[:, None]


def brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return blend(images, 0.0, magnitude)


def color(images: Tensor, magnitude: Tensor) -> Tensor:
    return blend(images, grey(images), magnitude)


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    return blend(images, grey(images).float().mean((1, 2, 3), keepdim=True), magnitude)


def sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    blurred = images.clone()
    blurred[..., 1:-1, 1:-1] = conv2d(images.float(), kernel / 13, groups=3).round_().to(torch.uint8)
    return blend(images, blurred, magnitude)


def invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= threshold, 255 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    return images & (256 - 2 ** (8 - bits)).to(torch.uint8)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True).float(), images.amax((2, 3), keepdim=True).float()
    flat = low == high
    scale = 255 / (high - low).masked_fill_(flat, 255)
    return ((images - low.masked_fill_(flat, 0)) * scale).clamp_(0, 255).to(torch.uint8)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Spread the histogram of each channel; one whose histogram leaves less than one step a grey level stays."""
    values = images.flatten(2).long()
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    last = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - last) // 255
    table = (histogram.cumsum(2) - histogram + step // 2) // step.clamp(min=1)  # counts below the level
    table = torch.where(step == 0, torch.arange(256, device=images.device), table.clamp_(0, 255))
    return table.gather(2, values).to(torch.uint8).view(images.shape)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees.flatten() * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return warp(images, [cos, -sin, zero, sin, cos, zero])


def shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    m = magnitude.flatten()
    one, zero = torch.ones_like(m), torch.zeros_like(m)
    return warp(images, [one, zero, zero, m, one, m * (images.shape[-1] / 2)])  # about the corner, as AutoAugment does


def translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    p = pixels.flatten()
    one, zero = torch.ones_like(p), torch.zeros_like(p)
    return warp(images, [one, zero, -p, zero, one, zero])


def translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    p = pixels.flatten()
    one, zero = torch.ones_like(p), torch.zeros_like(p)
    return warp(images, [one, zero, zero, zero, one, -p])


def warp(images: Tensor, matrix: list[Tensor]) -> Tensor:
    """Nearest neighbour at `matrix` (2 x 3, row by row, each [n]) times a pixel's place from the centre, in pixels."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    a, b, c, d, e, f = (t.view(-1, 1, 1) for t in matrix)
    grid = torch.stack([(a * x + b * y + c) / (width / 2), (d * x + e * y + f) / (height / 2)], dim=-1)
    return grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": autocontrast,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Posterize": posterize,
    "Rotate": rotate,
    "Sharpness": sharpness,
    "ShearY": shear_y,
    "Solarize": solarize,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}

# (step, operation) -> of each sub-policy the probability that the step is this operation, -1 where it is another, and its level
TABLES = {
    (step, name): (
        torch.tensor([p if op == name else -1.0 for op, p, _ in rows]),
        torch.tensor([level or 0 for _, _, level in rows]),
    )
    for step, rows in enumerate(zip(*SUBPOLICIES, strict=True))
    for name in OPERATIONS
}
