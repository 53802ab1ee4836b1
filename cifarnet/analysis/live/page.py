"""The live page: what there is to say of a training, in one HTML file that asks for nothing from anywhere."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cifarnet import __version__
from cifarnet.analysis.html_page import assemble, joined
from cifarnet.core.json_values import plain

HERE = Path(__file__).parent
OWN = ("charts.js", "page.js")
MARK = b'<meta name="generator" content="cifarnet train --live">'  # of page.html: the file is one of ours


@dataclass(frozen=True)
class Watched:
    """A training at a moment. Times are in seconds, moments in seconds since 1970.

    Args:
        name: of the run; title: of its model, loss and data.
        facts: (name, text) of what runs where; options: (flag, value) of all of them.
        loss: its name, where the training loss is no cross-entropy as the others are; else "".
        tta: the held-out and the test images are measured in six views each.
        epochs: asked for; steps: of an epoch; step: done in the unfinished one.
        records: the lines of metrics.jsonl.
        state: running, finished, interrupted, diverged or failed; why: a sentence about it.
        started: when the run was begun, ISO 8601, or "".
        written: when this was; left: until the end, None where that is not known.
        patience: how long after `written` a running training may be silent.
    """

    name: str
    title: str
    facts: Sequence[tuple[str, str]]
    options: Sequence[tuple[str, str]]
    loss: str
    tta: bool
    epochs: int
    steps: int
    step: int
    records: Sequence[dict[str, Any]]
    state: str
    why: str
    started: str
    written: float
    left: float | None
    patience: float


def render(watched: Watched) -> bytes:
    """The page, UTF-8. It reads its own file again as long as it is open, and so shows what was written since."""
    numbers = asdict(watched) | {"version": __version__, "records": plain(watched.records)}
    return assemble(HERE, f"{watched.name} · {watched.title}", numbers, {"own": joined(HERE, *OWN)})
