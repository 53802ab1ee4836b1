"""The reliability diagram: how often a model is right where it says how sure it is; a panel a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cifarnet.analysis.plots.legend import ROW, columns_of
from cifarnet.analysis.plots.mpl import Line2D
from cifarnet.analysis.plots.style import FAINT, LINES, PAGE, drawing, panel_shape, panels_of
from cifarnet.analysis.plots.text import fit, headline, height_of, names_in
from cifarnet.analysis.plots.titles import shared
from cifarnet.analysis.significance import wilson_interval
from cifarnet.core.errors import plural
from cifarnet.core.percent import percent
from cifarnet.engine.calibrate import calibration_scores, equal_mass_bins
from cifarnet.models.calibration import Calibration, probabilities

SIDE = 2.3  # inches of a panel

# Logits [N, C], labels [N], and the calibration of a run.
Outputs = tuple[Tensor, Tensor, Calibration | None]


def numbers(outputs: Outputs) -> dict[str, dict[str, Any]]:
    """Of `before` and `after` the temperature: confidence, accuracy and images of each bin, and the scores."""
    logits, labels, calibration = outputs
    found: dict[str, dict[str, Any]] = {}
    for name, used in {"before": None, **({"after": calibration} if calibration else {})}.items():
        confidence, predicted = probabilities(logits.cpu(), used).max(dim=1)
        bins = equal_mass_bins(confidence.numpy(), (predicted == labels.cpu()).numpy())
        found[name] = dict(zip(("confidence", "accuracy", "images"), bins, strict=True))
        found[name] |= vars(calibration_scores(logits, labels, used))
    return found


def draw(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path, title: str = "") -> Path:
    """Draws what `numbers` gives of each run. On the dashed line a model is right as often as it says.

    The bars are the 95% interval of each bin's accuracy (Wilson's), as if the bin were drawn alone.

    Raises:
        Failed: the file cannot be written.
    """
    rows, columns = panel_shape(len(panels))
    width = min(PAGE, columns * (SIDE + 0.25) + 0.5)
    runs = names_in(list(panels), 72 * width / columns, 7)
    counts = [plural(int(sum(found["before"]["images"])), "image") for found in panels.values()]
    of_all = shared(counts)
    with drawing(path, width, rows * (width / columns + 0.4) + 2 * ROW + height_of(title)) as figure:
        cells = panels_of(figure, len(panels), sharex=True, sharey=True)
        for number, (axes, name, found, count) in enumerate(zip(cells, runs, panels.values(), counts, strict=True)):
            axes.plot([0, 100], [0, 100], color=FAINT, linestyle="--", linewidth=0.8, label="right as often as it says")
            for key, label, colour in (("before", "as trained", LINES[1]), ("after", "calibrated", LINES[0])):
                if key in found:
                    draw_bins(axes, found[key], label, colour)
            axes.set_aspect("equal")
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 100)
            lowest = number + columns >= len(cells)
            axes.tick_params(labelbottom=lowest)
            axes.set_xlabel("probability of the predicted class (%)" if lowest else "")
            axes.set_ylabel("accuracy (%)" if number % columns == 0 else "")
            errors = " → ".join(percent(scores["ece"], 1) for scores in found.values())
            of = "" if of_all else f", {count}"
            text = f"{name}\ncalibration error {errors}{of}".lstrip()
            fit(axes.set_title(text, fontweight="normal", fontsize=7), 72 * width / columns)
        names = {label: mark for axes in cells for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        names["bars: 95% intervals"] = Line2D([], [], linestyle="")
        columns_of_names = columns_of(list(names), width, 4)
        figure.legend(names.values(), list(names), loc="outside lower left", ncols=columns_of_names)
        if title or of_all:
            headline(figure, " · ".join(filter(None, (title, of_all))), fontsize=8)
    return path


def draw_bins(axes: Any, found: Mapping[str, Any], label: str, colour: str) -> None:
    """The accuracy of each bin over its mean probability."""
    accuracy, images = np.asarray(found["accuracy"]), np.asarray(found["images"])
    ends = np.array([wilson_interval(round(part * n), n) for part, n in zip(accuracy, images.tolist(), strict=True)])
    error = 100 * np.abs(ends.T - accuracy)  # below and above
    x = 100 * np.asarray(found["confidence"])
    style: Any = {"color": colour, "markersize": 2.5, "linewidth": 1, "clip_on": False}
    axes.errorbar(x, 100 * accuracy, error, fmt="o-", elinewidth=0.7, label=label, **style)
