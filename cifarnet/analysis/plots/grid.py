"""Pictures in rows: test images with what the model takes them for, and samples of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from cifarnet.analysis.plots.mpl import Rectangle
from cifarnet.analysis.plots.style import COLUMN, PAGE, RIGHT, WRONG, drawing, pack, plain
from cifarnet.analysis.plots.text import headline, height_of, short_names, width_of
from cifarnet.data import AnySplit

COLUMNS = 10


def draw(
    images: Tensor,
    labels: Tensor,
    predictions: Tensor,
    classes: Sequence[str],
    path: Path,
    title: str = "",
) -> Path:
    """Draws images uint8 [N, 3, H, W], ten in a row: green frame and tick right, red frame and cross wrong.

    Below each the predicted class with its tick or cross, and where it is wrong the true one in brackets.

    Raises:
        Failed: the file cannot be written.
    """
    rows, there = -(-len(images) // COLUMNS), sorted({*labels.tolist(), *predictions.tolist()})
    names = dict(zip(there, short_names([classes[index] for index in there], 10), strict=True))
    right = int((labels == predictions).sum())
    with drawing(path, PAGE, 0.45 + 0.92 * rows + height_of(title)) as figure:
        pack(figure, 0.03)
        axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
        for cell, image, label, predicted in zip(axes, images, labels.tolist(), predictions.tolist(), strict=False):
            show(cell, image)
            good = label == predicted
            colour = RIGHT if good else WRONG
            text = f"{'✓' if good else '✗'} {names[predicted]}\n"
            text += "" if good else f"({names[label]})"
            cell.set_xlabel(text, fontsize=6, color=colour, labelpad=2, linespacing=1.15)
            cell.add_patch(framed(cell, colour))
        for cell in list(figure.axes)[len(images) :]:
            plain(cell)
        heading = (
            f"{right} of {len(images)} right; below each its prediction, right ✓ or wrong ✗, then (the true class)"
        )
        headline(figure, title, heading, fontsize=8)
    return path


def framed(axes: Any, colour: str) -> Rectangle:
    """A frame around a picture."""
    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=colour, linewidth=2.2, clip_on=False)


def show(axes: Any, image: Tensor) -> None:
    """A picture uint8 [3, H, W] without ticks or frame."""
    plain(axes)
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")


@dataclass(frozen=True)
class Samples:
    """Some images of each class: pictures uint8 [C, n, 3, H, W] and their indices in the split [C, n]."""

    images: Tensor
    indices: Tensor


def choose_samples(split: AnySplit, count: int, each: int, seed: int) -> Samples:
    """`each` random images of each of `count` classes (fewer where a class has fewer, the same for all)."""
    labels = split.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    members = [(labels == index).nonzero()[:, 0] for index in range(count)]
    each = min([each, *(len(found) for found in members)])
    chosen = torch.stack([found[torch.randperm(len(found), generator=generator)[:each]] for found in members])
    images = next(iter(split.batches([chosen.flatten()]))).cpu()
    return Samples(images.view(count, each, *images.shape[1:]), chosen)


def draw_samples(samples: Samples, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Draws a row of pictures a class.

    Raises:
        Failed: the file cannot be written.
    """
    count, each, _, height, _ = samples.images.shape
    names, gap = short_names(classes, 16), max(1, height // 12)
    beside = max(width_of(name, 7.5) for name in names) / 72 + 0.25
    # One picture of all: axes for each of a thousand would take half a minute.
    sheet = make_grid(samples.images.flatten(0, 1), each, gap, pad_value=255)
    with drawing(path, max(COLUMN, beside + 0.52 * each), 0.4 + 0.52 * count + height_of(title)) as figure:
        pack(figure, 0.02)
        axes = figure.subplots()
        show(axes, sheet)
        axes.set_yticks([gap + height / 2 - 0.5 + (height + gap) * row for row in range(count)], names, fontsize=7.5)
        axes.tick_params(length=0)
        if title:
            headline(figure, title)
    return path
