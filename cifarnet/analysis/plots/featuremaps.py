"""The maps of an image, layer by layer: a grid of channels, an overview of the network, Grad-CAM over the image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cifarnet.analysis.features import FeatureMap
from cifarnet.analysis.plots.mpl import ScalarMappable
from cifarnet.analysis.plots.style import PAGE, drawing, pack, plain
from cifarnet.analysis.plots.text import fit, headline, height_of

OVERVIEW_CHANNELS = 5
CAM_CELL = 1.55  # inches
OVERVIEW_LAYERS = 9  # in one band of the overview


def draw_channels(layer: FeatureMap, channels: int, path: Path, title: str = "") -> Path:
    """Draws the `channels` most active channels of a layer in a square grid (25: the report's 5 x 5), each in its own range.

    The most active stands first; above each its number.

    Raises:
        Failed: the file cannot be written.
    """
    count = min(channels, len(layer.values))
    side = int(np.ceil(np.sqrt(count)))
    rows = -(-count // side)
    cell = max(0.36, min(0.8, 4.6 / side))
    width = max(3.0, cell * side)
    with drawing(path, width, width * rows / side + 0.12 * rows + 0.55 + height_of(title)) as figure:
        pack(figure, 0.02)
        order = most_active(layer.values)[:count]
        grid = figure.subplots(rows, side, squeeze=False)
        for index, axes in enumerate(grid.flat):
            plain(axes)
            if index < count:
                axes.imshow(layer.values[order[index]].numpy(), cmap="viridis", interpolation="nearest")
                axes.set_title(str(order[index]), fontsize=5, pad=1, fontweight="normal", loc="center")
        shown = f"{number_shown(count, len(layer.values))}, the most active first"
        headline(figure, title, f"{layer.name}: {shape_and_field(layer)}", shown, fontsize=7.5)
    return path


def most_active(values: Tensor) -> list[int]:
    """The channels of maps [channels, H, W] by their mean size |a|, the largest first."""
    return values.abs().mean(dim=(1, 2)).argsort(descending=True, stable=True).tolist()


def number_shown(count: int, there: int) -> str:
    """How many channels are drawn of those that are there."""
    return f"{count} of {there} channels" if count < there else f"all {there} channels" if there > 1 else "1 channel"


def shape_and_field(layer: FeatureMap) -> str:
    """Shape and receptive field of a layer."""
    return f"{shape_of(layer)}, sees {layer.field.size} px"


def shape_of(layer: FeatureMap) -> str:
    """channels × height × width."""
    return "×".join(str(size) for size in layer.values.shape)


def draw_overview(image: Tensor, layers: Sequence[FeatureMap], path: Path, title: str = "") -> Path:
    """Draws the way of an image [3, H, W] (uint8) through the layers: a column a layer, with its most active channels.

    Raises:
        Failed: the file cannot be written.
    """
    bands = [layers[start : start + OVERVIEW_LAYERS] for start in range(0, len(layers), OVERVIEW_LAYERS)]
    columns = 1 + max(len(band) for band in bands)
    rows = len(bands) * OVERVIEW_CHANNELS
    cell = min(0.95, PAGE / columns)
    height = 0.41 + len(bands) * (0.42 + (cell - 0.02) * OVERVIEW_CHANNELS) + height_of(title)
    with drawing(path, max(3.2, cell * columns), height) as figure:
        pack(figure, 0.015)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            plain(axes)
        grid[0, 0].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        head(grid[0, 0], "input", "×".join(str(size) for size in image.shape), "")
        for number, band in enumerate(bands):
            for column, layer in enumerate(band, start=1):
                cells = grid[number * OVERVIEW_CHANNELS :, column]
                for axes, channel in zip(cells, most_active(layer.values)[:OVERVIEW_CHANNELS], strict=False):
                    axes.imshow(layer.values[channel].numpy(), cmap="viridis", interpolation="nearest")
                head(cells[0], layer.name, shape_of(layer), f"sees {layer.field.size} px")
        headline(figure, title, "of each layer its most active channels, the most active first")
    return path


def head(axes: Any, *lines: str) -> None:
    """Writes lines above a column."""
    axes.set_title("\n".join(lines), fontsize=5.5, loc="center", fontweight="normal", linespacing=1.25)


def draw_cam(image: Tensor, heats: Sequence[tuple[str, Tensor]], path: Path, title: str = "") -> Path:
    """Draws an image [3, H, W] (uint8), and beside it each heat map [H, W] in [0, 1] over it, under its name.

    Raises:
        Failed: the file cannot be written.
    """
    columns = 1 + len(heats)
    picture = image.permute(1, 2, 0).numpy()
    with drawing(path, CAM_CELL * columns + 0.35, 2.02 + height_of(title)) as figure:
        pack(figure, 0.03)
        cells = figure.subplots(1, columns, squeeze=False)[0]
        for axes in cells:
            plain(axes)
            axes.imshow(picture)
        cells[0].set_title("image", fontweight="normal", loc="center", fontsize=7)
        for axes, (name, heat) in zip(cells[1:], heats, strict=True):
            # Cold places let the image through.
            shown = axes.imshow(heat.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=(0.25 + 0.5 * heat).numpy())
            fit(axes.set_title(name, fontweight="normal", loc="center", fontsize=7), 72 * CAM_CELL)
            if not heat.any():
                axes.set_xlabel("no evidence: zero everywhere", fontsize=6, labelpad=2)
        scale = ScalarMappable(cmap=shown.cmap, norm=shown.norm)
        bar = figure.colorbar(scale, ax=cells, shrink=0.8, pad=0.01, ticks=(0, 1))
        bar.ax.tick_params(labelsize=6, length=0)
        if title:
            headline(figure, title, fontsize=7.5)
    return path
