"""The explorer's page: its parts and the numbers in one HTML file that asks for nothing from anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cifarnet.analysis.explore.gather import Seen
from cifarnet.analysis.explore.thumbnails import sprite
from cifarnet.analysis.html_page import assemble, coded, joined
from cifarnet.analysis.plots.style import class_colours

HERE = Path(__file__).parent
LIBRARY = "plotly/plotly-strict.min.js"  # of the npm package plotly.js-strict-dist-min, which does without eval
OWN = ("data.js", "colours.js", "maps.js", "hand.js", "sphere.js", "tables.js", "page.js", "controls.js")


def render(
    runs: Sequence[Seen],
    *,
    title: str,
    split: str,
    classes: Sequence[str],
    labels: Tensor,
    indices: Tensor,
    small: np.ndarray,
) -> bytes:
    """The page of one or two runs that saw the same images, UTF-8.

    Args:
        title: what the browser's tab says.
        labels: of the images [N]; indices: their places in the split [N]; small: their thumbnails [N, side, side, 3].
    """
    picture, columns = sprite(small)
    numbers = {
        "title": title,
        "split": split,
        "methods": list(dict.fromkeys(name for run in runs for name in (*run.maps, *run.missing))),
        "classes": list(classes),
        "colours": [in_hex(colour) for colour in class_colours(len(classes))],
        "labels": packed(labels.numpy(), "<i4"),
        "indices": packed(indices.numpy(), "<i4"),
        "sprite": {"url": "data:image/jpeg;base64," + coded(picture), "side": small.shape[1], "columns": columns},
        "runs": [described(run) for run in runs],
    }
    return assemble(HERE, title, numbers, {"library": joined(HERE, LIBRARY), "own": joined(HERE, *OWN)})


def described(run: Seen) -> dict[str, Any]:
    """A run as the page reads it."""
    whole = {name: packed(getattr(run, name), "<i4") for name in ("predictions", "rival", "neighbors")}
    real = ("directions", "prototypes", "own", "other", "norms")
    return {
        "name": run.name,
        "title": run.title,
        "lost": run.lost,
        "missing": run.missing,
        "maps": {method: packed(points, "<f4") for method, points in run.maps.items()},
        **whole,
        **{name: packed(getattr(run, name), "<f4") for name in real},
        "probabilities": packed(run.probabilities, "<f8"),  # in float32 1 - 1e-8 is 1
    }


def packed(values: np.ndarray, kind: str) -> str:
    """An array as base64, little-endian, row by row."""
    return coded(np.ascontiguousarray(values, dtype=kind).tobytes())


def in_hex(colour: Any) -> str:
    """#rrggbb of a colour of matplotlib's: that, or (r, g, b, a) in [0, 1]."""
    return colour if isinstance(colour, str) else "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
