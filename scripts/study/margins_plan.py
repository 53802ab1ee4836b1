"""The plan of the study "Where a margin pays": networks, regimes, losses, tries, runs in their order, and what each costs.

This is the one place where networks, epochs and images are chosen.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data.augment.progressive import side_at
from cifarnet.engine.recipes import recipe_values

SEED = 17  # of the first run; the others follow
VAL_FRACTION = 0.1  # of the training images, on which the tries are compared
FAR, FPIR, GALLERIES = 1e-2, 0.1, 20  # unseen classes; DIR is the mean over so many draws of the gallery
RARE = 3  # classes at the end of the long tail
PROTOCOL = {"far": FAR, "fpir": FPIR, "galleries": GALLERIES, "rare": RARE}  # what a run's measures are

EVALUATION = 1.03  # a run with its evaluation, in its training
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The classes that are seen, of each draw: the five splits of open-set recognition (Neal et al. 2018), as OpenOOD has them.
SEEN = ((0, 1, 2, 4, 5, 9), (0, 3, 5, 7, 8, 9), (0, 1, 5, 6, 7, 8), (3, 4, 5, 7, 8, 9), (0, 1, 2, 3, 7, 8))


@dataclass(frozen=True)
class Network:
    """A recipe's network, optimizer and augmentation; the epochs are the study's own.

    words: for the page; changes: of the recipe's values; minutes: of a core for 50,000 images of a side, measured with one thread.
    """

    recipe: str
    words: str
    minutes: dict[int, float]
    changes: dict[str, Any] = field(default_factory=dict)


SPEED = Network(  # minutes of a Xeon with AMX, bf16
    "speed", "speednet, 2.0 M parameters, with images that grow from 16 pixels", {16: 0.56, 24: 0.95, 32: 1.50},
    {"progressive": 16},
)  # fmt: skip
SMALL = Network(  # minutes of an EPYC with AVX2
    "baseline-plus", "the report's small CNN, 0.12 M parameters, in fp32", {32: 0.52}, {"precision": "fp32"}
)


@dataclass(frozen=True)
class Method:
    """A loss as the study takes it. tries: values of its own constants, one dictionary a try; () takes `same_as`'s, or none."""

    loss: str
    margin: bool
    tries: tuple[dict[str, Any], ...] = ()
    same_as: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


SMOOTHING = tuple({"label_smoothing": value} for value in (0.0, 0.1, 0.2))
# A gentle margin, the one that fits the number of classes (with the scale that does), and a larger scale with it.
FITTED = ({"scale": "auto", "margin": 0.05}, {"scale": "auto", "margin": "auto"}, {"scale": 30.0, "margin": 0.2})
METHODS = {
    "ce": Method("ce", False, SMOOTHING),
    "cosface": Method("cosface", True, FITTED),
    "arcface": Method("arcface", True, FITTED),
    "adaface": Method("adaface", True, FITTED),
    "ce-simplex": Method("ce", False, same_as="ce", changes={"prototypes": "simplex"}),
    "ldam": Method("ldam", True, ({"scale": 30.0, "margin": 0.5}, *FITTED[1:])),
    "la": Method("la", False),
}
EVERYWHERE = ("ce", "cosface", "arcface", "adaface", "ce-simplex")


@dataclass(frozen=True)
class Measure:
    """A score in [0, 1] as a run's JSON names it, and in words; of some less is better."""

    name: str
    words: str
    less_is_better: bool = False


ACCURACY = Measure("accuracy", "test accuracy")


@dataclass(frozen=True)
class Regime:
    """What a network is trained on, for so many epochs, with how many seeds (draws), by which losses; what is measured."""

    name: str
    title: str
    about: str
    images: int
    epochs: int
    seeds: int
    measures: tuple[Measure, ...]
    methods: tuple[str, ...] = EVERYWHERE
    changes: dict[str, Any] = field(default_factory=dict)
    draws: tuple[tuple[int, ...], ...] = ()
    network: Network = SPEED

    @property
    def unit(self) -> str:
        """What its runs are counted in."""
        return "draw" if self.draws else "seed"


OF_SPEED = (
    Regime(
        "unseen", "Unseen classes", "trained on six classes, measured on the test images of the four others",
        30_000, 8, 5,
        (
            Measure("tar", f"TAR at FAR {FAR:g}"),
            Measure("eer", "EER", less_is_better=True),
            Measure("dir", f"DIR at FPIR {FPIR:g}"),
        ),
        draws=SEEN,
    ),
    Regime("balanced", "Balanced classes", "all ten classes, 5,000 images of each", 50_000, 6, 3, (ACCURACY,)),
    Regime(
        "tail", "A long tail", "the first class has 100 times the training images of the last, in between n₀ · 100^(−k/9), rounded; the test images are balanced",
        12_408, 16, 5,
        (ACCURACY, Measure("rare", "recall of the three rarest classes")),
        methods=(*EVERYWHERE, "ldam", "la"),
        changes={"imbalance": 100.0},
    ),
    Regime(
        "noise", "Wrong labels", "40% of the training labels are wrong, each uniformly one of the nine other classes; the test labels are right", 50_000, 6, 3,
        (ACCURACY,), changes={"label_noise": 0.4},
    ),
)  # fmt: skip
# The small CNN costs a tenth on a processor without AMX: twice the epochs, and five seeds everywhere.
OF_SMALL = tuple(
    replace(
        one, name=f"{one.name}-small", title=f"{one.title}, small CNN", epochs=2 * one.epochs, seeds=5, network=SMALL
    )
    for one in OF_SPEED
)
REGIMES = OF_SMALL + OF_SPEED


@dataclass(frozen=True)
class Item:
    """One JSON of the study: a run with the seed (or draw) of this number, from 0; None: the tries of a loss."""

    regime: Regime
    method: str
    seed: int | None

    @property
    def name(self) -> str:
        """As its JSON and its run folder are called."""
        return f"{self.regime.name}-{self.method}-{'tries' if self.seed is None else self.seed}"

    @property
    def epochs(self) -> int:
        """Epochs of one training: the tries are half as long."""
        return max(1, self.regime.epochs // 2) if self.seed is None else self.regime.epochs

    @property
    def minutes(self) -> float:
        """Minutes of a core that it is estimated to take."""
        images, count = self.regime.images, 1
        if self.seed is None:
            images, count = round(images * (1 - VAL_FRACTION)), len(METHODS[self.method].tries)
        network = self.regime.network
        first = network.changes.get("progressive", 0)
        sides = (side_at(epoch, self.epochs, first, 32) for epoch in range(self.epochs))
        return count * sum(network.minutes[side] for side in sides) * images / 50_000 * EVALUATION


def choose(names: Sequence[str] | None, regimes: Sequence[Regime] = REGIMES) -> list[Regime]:
    """The regimes of these names, in the order named; all of them where none is. Raises Refused for another name."""
    known = {regime.name: regime for regime in regimes}
    for name in names or ():
        if name not in known:
            raise Refused("--regime", f"{name} is none", f"choose from {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or known)]


def items_of(regime: Regime) -> list[Item]:
    """The runs of a regime in their order: a seed with every loss before the next seed; a loss's tries before its first run."""
    found = []
    for seed in range(regime.seeds):
        for method in regime.methods:
            if seed == 0 and METHODS[method].tries:
                found.append(Item(regime, method, None))
            found.append(Item(regime, method, seed))
    return found


def source_of(item: Item) -> Item | None:
    """The tries whose best setting a run takes; None where its loss has none."""
    method = METHODS[item.method]
    name = item.method if method.tries else method.same_as
    return Item(item.regime, name, None) if name else None


def config_of(item: Item, constants: dict[str, Any], base: dict[str, Any], classes: Sequence[str]) -> TrainConfig:
    """The configuration of a run, or of a try, with these constants of its loss.

    Args:
        base: values that replace the recipe's (a rehearsal's); classes: the data set's names, for the draws.
    """
    regime, method = item.regime, METHODS[item.method]
    values = recipe_values(regime.network.recipe, method.loss) | regime.network.changes | {"dataset": "cifar10"} | base
    for name in ("scale", "margin", "label_smoothing"):  # the tries say these
        values.pop(name, None)
    values |= {"loss": method.loss, "epochs": item.epochs, "eval_every": item.epochs} | regime.changes | method.changes
    values |= {"seed": SEED + (item.seed or 0), **constants}
    if regime.draws:
        seen = regime.draws[item.seed or 0]
        values["hold_out_classes"] = ",".join(name for place, name in enumerate(classes) if place not in seen)
    if item.seed is None:
        values["val_fraction"] = VAL_FRACTION
    return TrainConfig.from_dict(values)
