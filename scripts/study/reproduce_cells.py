"""The cells of the report's tables, and how many epochs each gets so that it ends within its time."""

import dataclasses
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset
from cifarnet.data.augment.progressive import side_at
from cifarnet.engine.loop import Watcher, run_epoch
from cifarnet.engine.recipes import recipe_values
from cifarnet.engine.setup import build_run
from cifarnet.storage.run_folder import RunFolder

MARGINS = ("arcface", "curricularface", "adaface")
# Of training and its evaluations: a little below 40 minutes and 7 minutes of a GPU. A CPU's cells have a cap each.
MINUTES = {"cpu": math.inf, "gpu": 38.0, "quick": 6.0}
EVALUATION = 1.1  # an epoch with its evaluation and checkpoint, in epochs
CAP = 300.0  # minutes of a core that one run may take on a CPU: 150 of two
# Of a core of a Xeon with AMX, in bf16.
SPEED_MINUTES, R18_MINUTES, R18_STEM_MINUTES, R50_MINUTES = 14.0, 41.0, 17.0, 120.0


@dataclass(frozen=True)
class Cell:
    """A cell of a table of the report: its name, the table, and the configuration that fills it.

    seeds: how many runs it is to have. minutes: of one core, that a run takes on a Xeon with AMX (docs/results/reproduce_exact
    says what it took); None: not known. capped: it may be so long that it gets fewer epochs.
    """

    name: str
    table: str
    config: TrainConfig
    seeds: int = 1
    minutes: float | None = None
    capped: bool = False

    @property
    def reference(self) -> str:
        """The cell that trains the same architecture by the report's own protocol for as long."""
        return f"{self.config.arch}-report"

    @property
    def plain(self) -> str:
        """The cell of the same architecture with cross-entropy."""
        return f"{self.config.arch}-ce"


def recipe(name: str, loss: str = "ce", **changes: Any) -> TrainConfig:
    """The configuration of a recipe with some values replaced."""
    return TrainConfig.from_dict(recipe_values(name, loss) | {"loss": loss} | changes)


def cells(kind: str) -> list[Cell]:
    """The cells of a kind of machine with the most epochs that they get. Of a GPU all, its quick ones the margins on ResNet-18,
    evaluated at the end alone; of a CPU what two cores can do, the cheap ones first."""
    if kind == "quick":
        short = {"epochs": 24, "eval_every": 24}
        return [Cell(f"resnet18-{loss}", "3.2", recipe("quick", loss, **short)) for loss in ("ce", *MARGINS)]
    return gpu_cells() if kind == "gpu" else cpu_cells()


def cpu_cells() -> list[Cell]:
    """Three seeds of the small networks and of ResNet-18, five of `speed`, one of the frozen head, the 7x7 stem and the deeper networks."""
    every = {"epochs": 12, "eval_every": 4}  # an evaluation is a tenth of an epoch
    found = [
        Cell("baseline", "3.2", recipe("baseline"), seeds=3, minutes=4.0),
        Cell("baseline-plus", "A.1", recipe("baseline-plus", epochs=80), seeds=3, minutes=18.0),
        Cell("speed", "recipes", recipe("speed", tta=True, eval_every=10), seeds=5, minutes=SPEED_MINUTES),
    ]
    for loss in ("ce", *MARGINS):
        found.append(Cell(f"resnet18-{loss}", "3.2", recipe("quick", loss, **every), seeds=3, minutes=R18_MINUTES))
    frozen = recipe("quick", "arcface", frozen_head=True, **every)
    found.append(Cell("resnet18-arcface-frozen", "frozen head", frozen, minutes=R18_MINUTES))
    stem = recipe("quick", stem="imagenet", **every)
    found.append(Cell("resnet18-imagenet", "3.8", stem, minutes=R18_STEM_MINUTES))
    for loss in ("ce", "adaface", "arcface", "curricularface"):
        deep = recipe("quick", loss, arch="resnet50", progressive=16, **every)
        found.append(Cell(f"resnet50-{loss}", "3.2", deep, minutes=R50_MINUTES, capped=True))
    plain = recipe("quick", arch="plainnet50", progressive=16, log_grad=True, **every)
    return [*found, Cell("plainnet50", "A.3", plain, minutes=R50_MINUTES, capped=True)]


def gpu_cells() -> list[Cell]:
    """Every cell of the tables, with 60 epochs, and a sweep over s and m."""
    long = {"epochs": 60}
    found = [Cell("baseline", "3.2", recipe("baseline")), Cell("baseline-plus", "A.1", recipe("baseline-plus"))]
    for arch in ("resnet18", "resnet50"):
        found += [Cell(f"{arch}-{loss}", "3.2", recipe("modern", loss, arch=arch, **long)) for loss in ("ce", *MARGINS)]
        found.append(Cell(f"{arch}-report", "report's protocol", recipe("report", arch=arch, **long)))
    frozen = recipe("modern", "arcface", frozen_head=True, **long)
    found.append(Cell("resnet18-arcface-frozen", "frozen head", frozen))
    for stem in ("cifar", "imagenet"):  # the third, small, is resnet18-ce
        found.append(Cell(f"resnet18-{stem}", "3.8", recipe("modern", stem=stem, **long)))
    found.append(Cell("plainnet50", "A.3", recipe("modern", arch="plainnet50", log_grad=True, **long)))
    for s in (8, 16, 32, 64):
        for m in (0.1, 0.3, 0.5):
            config = recipe("modern", "arcface", epochs=20, loss_options={"scale": float(s), "margin": m})
            found.append(Cell(f"resnet18-arcface-s{s}-m{m}", "s and m", config))
    found.append(Cell("speed", "recipes", recipe("speed", tta=True)))
    return found


def choose(known: list[Cell], names: list[str] | None) -> list[Cell]:
    """The cells of these names; all of them where none are given.

    Raises:
        Refused: a name of no cell.
    """
    unknown = sorted(set(names or ()) - {cell.name for cell in known})
    if unknown:
        raise Refused(
            "--only",
            f"{', '.join(unknown)} is no cell of this kind",
            f"choose from {', '.join(cell.name for cell in known)}",
        )
    return [cell for cell in known if not names or cell.name in names]


def measure_rates(chosen: list[Cell], data: Dataset) -> dict[str, float]:
    """Images a second that each cell trains here, by name; cells that differ by loss, rate or s and m are timed once."""
    same = ("arch", "stem", "batch_size", "precision", "augment", "optimizer", "progressive")
    known: dict[tuple, float] = {}
    for cell in chosen:
        key = tuple(getattr(cell.config, name) for name in same)
        if key not in known:
            known[key] = measure_rate(cell.config, data)
    return {cell.name: known[tuple(getattr(cell.config, name) for name in same)] for cell in chosen}


def measure_rate(config: TrainConfig, data: Dataset) -> float:
    """Images a second over the whole of a training, whose images may grow (--progressive): each size is timed."""
    sides = [side_at(epoch, config.epochs, config.progressive, config.image_size) for epoch in range(config.epochs)]
    seconds = {side: 1 / measure_side(config, data, side) for side in set(sides)}
    return len(sides) / sum(seconds[side] for side in sides)


def measure_side(config: TrainConfig, data: Dataset, side: int) -> float:
    """Images a second of the training loop at one image size: the median of three short epochs after one that warms up."""
    steps = 30 if torch.cuda.is_available() else 2
    count = min(steps * config.batch_size, len(data.train))
    short = dataclasses.replace(data, train=data.train.subset(torch.arange(count)))
    first = side if config.progressive else 0
    # In the first epoch of two the side is `progressive`; epoch 0 is run again and again.
    run = build_run(dataclasses.replace(config, progressive=first, epochs=2), short)
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(4):
            run.progress.step, run.progress.seconds = 0, 0.0
            started = time.perf_counter()
            run_epoch(run, RunFolder(Path(folder)), Watcher(), StopRequest())  # it waits for the device
            rates.append(run.images / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def plan_epochs(chosen: list[Cell], rates: dict[str, float], images: int, seeds: int, minutes: float) -> dict[str, int]:
    """Epochs of each cell, at least one: all that it wants where that is little, the same time for the others.

    Args:
        rates: images a second, by cell; images: of an epoch; minutes: for all cells and seeds together.
    """
    costs = {cell.name: cell.config.epochs * EVALUATION * images / rates[cell.name] for cell in chosen}
    level = fair_level(list(costs.values()), 60 * minutes / seeds)
    return {cell.name: max(1, int(cell.config.epochs * min(1, level / costs[cell.name]))) for cell in chosen}


def capped_epochs(cell: Cell, rate: float, images: int, cores: int) -> int:
    """Epochs of a cell of a CPU, at least one: as many as it wants where they take no more than CAP.

    Args:
        rate: images a second on so many cores; images: of an epoch.
    """
    minutes = EVALUATION * images / rate * cores / 60
    return max(1, min(cell.config.epochs, int(CAP / minutes)))


def fair_level(costs: list[float], total: float) -> float:
    """The most that each may take so that together they take `total`, what the cheap ones leave going to the others."""
    for index, cost in enumerate(sorted(costs)):
        level = total / (len(costs) - index)
        if cost > level:
            return level
        total -= cost
    return math.inf


def small(cell: Cell) -> Cell:
    """The cell for a few random pixels."""
    return replace(cell, config=replace(cell.config, epochs=1, batch_size=16))


def with_epochs(cell: Cell, epochs: int) -> Cell:
    """The cell, trained for so many epochs."""
    return replace(cell, config=replace(cell.config, epochs=epochs))
