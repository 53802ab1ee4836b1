"""The plan of a search for a loss's constants on held-out training images, and the table that it is kept in."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.later_version import refuse_later_options
from cifarnet.core.option_values import value_text
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.halving import Rung, Trial, all_epochs, ranked, rungs_of, winner
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.objectives.base import Objective
from cifarnet.storage.atomic import write_file
from cifarnet.storage.run_files import read_json

SEARCHES = Path("searches")
TABLE = "tune.json"
Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Search:
    """Settings of several losses, as many of each, on the same rungs: every loss has the same epochs.

    configs: a loss's configurations, one a setting, of the epochs of the last rung.
    settings: the searched constants of each, by name; grid: these constants, each with its values.
    goes_on: a promoted trial goes on from its own state; else (where the schedule depends on the epochs) it starts again.
    """

    configs: dict[str, list[TrainConfig]]
    settings: list[dict[str, Any]]
    grid: Grid
    eta: int
    rungs: list[Rung]
    goes_on: bool
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs that are trained in all."""
        return len(self.configs) * all_epochs(self.rungs)

    def name(self, loss: str, number: int) -> str:
        """A setting as its folder is called: adaface-scale16-margin0.1."""
        return "-".join([loss, *(f"{name}{value_text(value)}" for name, value in self.settings[number].items())])

    def folder(self, out: Path, loss: str, number: int, epochs: int) -> Path:
        """The run folder of a trial; one that starts again for more epochs has another."""
        name = self.name(loss, number)
        return out / (name if self.goes_on else f"{name}-{epochs}ep")

    def best(self) -> tuple[str, Trial] | None:
        """The loss and the trial that came out first of all; None where every one failed."""
        found = [(loss, best) for loss, trials in self.trials.items() if (best := winner(trials))]
        top = ranked(
            [trial for _, trial in found if trial.rung == len(self.rungs) - 1] or [trial for _, trial in found]
        )
        return next((pair for pair in found if top and pair[1] is top[0]), None)


def plan_search(
    losses: Sequence[str], grid: Grid, config_of: Callable[[str, dict[str, Any]], TrainConfig], eta: int
) -> Search:
    """The search over each combination of the values in `grid`, for each loss.

    Args:
        config_of: (loss, constants) -> the configuration of a trial, of the epochs of the last rung.

    Raises:
        Refused: a single setting, a loss or value named twice, a constant that a loss does not have, a configuration that
            cannot be trained, no held-out images, too few epochs.
    """
    for what, values in {"loss": losses, **grid}.items():
        for place, value in enumerate(values):
            if value in values[:place]:
                raise Refused(what, f"names {value} twice", "name each once")
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    configs = {loss: [config_of(loss, setting) for setting in settings] for loss in losses}
    for config in itertools.chain.from_iterable(configs.values()):
        check_options(config)
        if not config.val_fraction:
            raise Refused(
                "val_fraction",
                "is 0: the settings are compared on held-out training images",
                "hold out a part, as in 0.1",
            )
    if len(settings) * len(losses) < 2:
        raise Refused(
            "tune", "has one setting, and nothing to choose from", "give several values, as in `margin=0.1,0.3`"
        )
    onward = all(goes_on(one[0]) for one in configs.values())
    rungs = rungs_of(len(settings), configs[losses[0]][0].epochs, eta, onward)
    return Search(configs, settings, grid, eta, rungs, onward)


def goes_on(config: TrainConfig) -> bool:
    """Can a training be gone on with for more epochs, and be what it had been with them from the start?

    Only where nothing follows from how many there are: a constant rate, no average at the end, no growing images, no margin
    that moves with the epochs.
    """
    objective = OBJECTIVES.get(config.loss)
    moves = objective is not None and type(objective).begin_epoch is not Objective.begin_epoch
    return config.schedule == "constant" and not (config.swa or config.progressive or moves)


def write_table(search: Search, out: Path, trials: Mapping[str, Sequence[Trial]]) -> None:
    """Writes tune.json, as a whole."""
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / TABLE, (json.dumps(document_of(search, trials), indent=2) + "\n").encode())


def document_of(search: Search, trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
    """Plain JSON values: the plan, and each trial with its loss, constants, epochs, held-out accuracy, promoted or not."""
    rows = []
    for loss, ended in trials.items():
        for trial in ended:
            epochs = search.rungs[trial.rung].epochs
            row = {"loss": loss, "setting": search.settings[trial.setting], "epochs": epochs}
            rows.append({**row, **asdict(trial.outcome), "promoted": trial.promoted})
    return {"plan": plan_of(search), "trials": rows}


def new_place(config: TrainConfig) -> Path:
    """searches/<arch>-<dataset>-<n> with the next n that is free; it is not made. Not in runs/: a search is no run."""
    stem = f"{config.arch}-{config.dataset}-"
    taken = [
        int(path.name.removeprefix(stem))
        for path in SEARCHES.glob(f"{stem}*")
        if path.name.removeprefix(stem).isdecimal()
    ]
    return SEARCHES / f"{stem}{max(taken, default=0) + 1}"


def newest_search() -> Path:
    """The folder of the search in searches/ whose table is the youngest. Raises Refused where there is none."""
    found = list(SEARCHES.glob(f"*/{TABLE}"))
    if not found:
        raise Refused("resume", "there is no search in searches yet", "name its folder with `out`")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def plan_of(search: Search) -> dict[str, Any]:
    """All that decides the search, as plain values: a search that goes on has the same."""
    first = lasting_options(next(iter(search.configs.values()))[0])
    every = {loss: [one.loss_options for one in configs] for loss, configs in search.configs.items()}
    return {"eta": search.eta, "rungs": [asdict(rung) for rung in search.rungs], "settings": every, "options": first}


def lasting_options(config: TrainConfig) -> dict[str, Any]:
    """The options that a resume may not change, but for the loss and its constants, which the settings have.

    The precision is one of them here: trials that begin later would be measured in another.
    """
    lasting = [item.name for item in fields(TrainConfig) if item.name == "precision" or not item.metadata["resume"]]
    return {name: getattr(config, name) for name in lasting if name not in ("loss", "loss_options")}


def kept_plan(table: Path, out: Path) -> Any:
    """The plan in a search's table, with the options of today: one that came later is at its default.

    Raises:
        Refused: it cannot be read, or was written by a later cifarnet.
    """
    kept = read_json(table, "remove the folder, and search again", within=out)
    plan = kept.get("plan") if isinstance(kept, dict) else None
    if not isinstance(plan, dict) or not isinstance(plan.get("options"), dict):
        return plan
    refuse_later_options(plan["options"], str(table))
    return plan | {"options": lasting_options(TrainConfig.from_dict(plan["options"], str(table)))}


def check_place(search: Search, out: Path, resume: bool) -> None:
    """Refuses a folder that cannot be taken: of another search, of this one without `resume`, or of other files."""
    table = out / TABLE
    if out.is_dir() and not table.exists() and any(out.iterdir()):
        raise Refused(str(out), "holds files that are no search", "choose another `out`, or an empty folder")
    if out.exists() and not out.is_dir():
        raise Refused(str(out), "is a file", "choose another `out`")
    if not table.exists():
        if resume:
            raise Refused(str(out), "there is no search to go on with", "leave `resume` out to start one")
        return
    if not resume:
        raise Refused(str(out), "already holds a search", "add `resume` to go on with it, or choose another `out`")
    was, now = kept_plan(table, out), json.loads(json.dumps(plan_of(search)))
    if was != now:
        why = f"the search there was begun otherwise: {', '.join(changes(was, now)) or 'its table is broken'}"
        raise Refused("resume", why, "give the command that it was begun with, or choose another `out`")


def changes(was: Any, now: dict[str, Any]) -> list[str]:
    """In what two plans differ, in words."""
    if not isinstance(was, dict):
        return []
    found = [
        {"eta": "eta", "rungs": "epochs of the rungs", "settings": "losses or constants"}.get(name, "")
        for name in now
        if was.get(name) != now[name]
    ]
    before = was.get("options")
    if isinstance(before, dict):
        found += [
            f"`{name}` {before.get(name)} -> {value}"
            for name, value in now["options"].items()
            if before.get(name) != value
        ]
    return [text for text in found if text]
