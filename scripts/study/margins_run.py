"""One item of the study: the tries of a loss, or a run with its measures; each ends as one JSON."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from margins_plan import (
    FAR,
    FPIR,
    GALLERIES,
    METHODS,
    PROTOCOL,
    RARE,
    Item,
    Regime,
    config_of,
    items_of,
    source_of,
)
from study_run import (
    RunWatcher,
    check_pixels,
    check_values,
    core_minutes,
    facts_of,
    machine_facts,
    read_json,
    train_run,
    write_json,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.identification.measure import identification
from cifarnet.analysis.identification.protocol import divide
from cifarnet.analysis.unit_embeddings import embed_classes
from cifarnet.analysis.verification.measure import verification
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset
from cifarnet.engine.evaluate import open_for_evaluation
from cifarnet.engine.halving import Rung, Trial, winner
from cifarnet.engine.search import TABLE, Search, check_place
from cifarnet.engine.trials import run_search
from cifarnet.storage.run_folder import RunFolder

PLACES = ("data_dir", "precision", "device", "workers")  # what the machine decides
Document = dict[str, Any]


class Study:
    """Where the study's files lie, the data, and what replaces the recipe's values (a rehearsal's)."""

    def __init__(self, out: Path, data: Dataset, base: dict[str, Any]) -> None:
        self.out, self.data, self.base = out, data, base

    def config(self, item: Item, constants: Document) -> TrainConfig:
        """The configuration of a run or a try."""
        return config_of(item, constants, self.base, self.data.classes)


def result_path(out: Path, item: Item) -> Path:
    """Where the JSON of an item lies."""
    return out / "results" / f"{item.name}.json"


def fill(study: Study, item: Item, stop: StopRequest) -> Document:
    """The JSON of an item: read where it is there, else made and written.

    Raises:
        Refused: what is there was made with other values. Diverged: the loss left the numbers.
        Interrupted: the time is spent, or a signal came; the state is saved.
    """
    path = result_path(study.out, item)
    if path.exists():
        found: Document = read_json(path)
        check(study, item, found, path)
        return found
    found = made_tries(study, item, stop) if item.seed is None else made_run(study, item, stop)
    write_json(path, found)
    return found


def check(study: Study, item: Item, found: Document, path: Path) -> None:
    """Refuses a JSON of other values, or of other data, than the plan has now."""
    check_planned(study.out, item, found, study.base, study.data.classes)
    check_pixels(found, study.data, path)


def check_planned(out: Path, item: Item, found: Document, base: Document, classes: Sequence[str]) -> None:
    """Refuses the JSON of an item that was made with other values, tries or measures than the plan has now."""
    path, made = result_path(out, item), TrainConfig.from_dict(found["config"], item.name)
    constants = made.loss_options if item.seed is None else chosen_constants(out, item)
    check_values(config_of(item, constants, base, classes), made, path, PLACES)
    tried = [one["constants"] for one in found["tries"]] if item.seed is None else None
    if tried is not None and tried != list(METHODS[item.method].tries):
        raise Refused(str(path), f"has the tries {tried}", "choose another folder, or remove it")
    if found.get("protocol", PROTOCOL) != PROTOCOL:  # the first runs do not say it
        raise Refused(str(path), f"was measured with {found['protocol']}", "choose another folder, or remove it")


def check_results(regimes: Sequence[Regime], out: Path, base: Document, classes: Sequence[str]) -> None:
    """Refuses results that the plan would not make now, and losses that saw other images than cross-entropy with the same seed."""
    for regime in regimes:
        plain: dict[int | None, Document] = {}
        for item in items_of(regime):  # of a seed cross-entropy comes first
            if not (path := result_path(out, item)).exists():
                continue
            found = read_json(path)
            check_planned(out, item, found, base, classes)
            seen = {name: found[name] for name in ("data_digest", "source_digest", "data")}
            if item.seed is not None and seen != plain.setdefault(item.seed, seen):
                raise Refused(str(path), f"saw {seen}, and ce with this seed {plain[item.seed]}", "remove one of them")


def chosen_constants(out: Path, item: Item) -> Document:
    """The constants that a run takes: the best of its tries; none where its loss has no tries."""
    source = source_of(item)
    return {} if source is None else read_json(result_path(out, source))["chosen"]


def made_tries(study: Study, item: Item, stop: StopRequest) -> Document:
    """Trains each setting of a loss for half as long, and takes the best on held-out training images."""
    tries = [dict(one) for one in METHODS[item.method].tries]
    configs, loss = [study.config(item, one) for one in tries], METHODS[item.method].loss
    rung = Rung(len(tries), item.epochs, item.epochs)
    grid = {name: [one[name] for one in tries] for name in tries[0]}
    search = Search({loss: configs}, tries, grid, eta=len(tries) + 1, rungs=[rung], goes_on=False)
    folder = study.out / "runs" / item.name
    if (folder / TABLE).exists():
        check_place(search, folder, resume=True)
    title = f"{item.regime.name}, tries of {item.method}"
    run_search(search, folder, dataset=study.data, watcher_of=lambda name, _: RunWatcher(f"{title}: {name}"), stop=stop)
    best = winner(search.trials[loss])
    assert best is not None  # run_search raises Failed where all diverged
    summaries = [read_json(RunFolder(path).summary) for path in folders(search, folder, loss, item)]
    return {
        "regime": item.regime.name,
        "method": item.method,
        "tries": [tried(tries, trial) for trial in search.trials[loss]],
        "chosen": tries[best.setting],
        "epochs": item.epochs,
        "seconds": round(sum(summary["seconds"] for summary in summaries), 1),
        **machine_facts(torch.device(summaries[0]["device"]), study.data),
        "precision": summaries[0]["precision"],
        "data_digest": summaries[0]["data_digest"],
        "source_digest": summaries[0]["source_digest"],
        "config": configs[best.setting].to_dict() | {"data_dir": None},
    }


def folders(search: Search, folder: Path, loss: str, item: Item) -> list[Path]:
    """The run folders of the tries that came to an end."""
    paths = [search.folder(folder, loss, number, item.epochs) for number in range(len(search.settings))]
    return [path for path in paths if RunFolder(path).summary.exists()]


def tried(tries: list[Document], trial: Trial) -> Document:
    """A try as plain JSON values."""
    outcome = trial.outcome
    return {"constants": tries[trial.setting], "accuracy": outcome.accuracy, "images": outcome.images}


def made_run(study: Study, item: Item, stop: StopRequest) -> Document:
    """Trains a run to its end and measures it."""
    config, path = study.config(item, chosen_constants(study.out, item)), study.out / "runs" / item.name
    title = f"{item.regime.name}, {item.method}, {item.regime.unit} {item.seed}"
    run, summary = train_run(config, path, study.data, title, stop, PLACES)
    scores = summary["test"]
    measures = {"accuracy": scores["accuracy"]}
    if any(one.name == "rare" for one in item.regime.measures):
        measures["rare"] = sum(one["recall"] for one in scores["classes"][-RARE:]) / RARE
    if item.regime.draws:
        measures |= unseen_measures(path, study.data)
    head = run.model.head.options
    return {
        "regime": item.regime.name,
        "method": item.method,
        "number": item.seed,
        "seed": config.seed,
        "held_out": config.hold_out_classes,
        "measures": measures,
        "protocol": PROTOCOL,
        "constants": {"scale": head.scale, "margin": head.margin} if head else dict(config.loss_options),
        **facts_of(run, summary, study.data),
    }


def unseen_measures(path: Path, data: Dataset) -> dict[str, float]:
    """Verification of all pairs of the held-out classes' test images, and identification with half of these classes enrolled.

    DIR is the mean over GALLERIES draws of who is enrolled, five images each: of four classes one draw says little.
    """
    found = embed_classes(open_for_evaluation(path, load=lambda *_, **__: data), "unseen")
    vectors, labels = found.vectors, found.labels
    pairs = verification(vectors, labels, far=(FAR,))
    hits = []
    for seed in range(GALLERIES):
        gallery, probes = divide(labels, 5, 0.5, seed)
        rates = identification(vectors[gallery], labels[gallery], vectors[probes], labels[probes], fpir=(FPIR,))
        hits.append(rates.points[0].dir)
    return {"tar": float(pairs.points[0].tar), "eer": float(pairs.eer), "dir": float(sum(hits) / len(hits))}


def cost_of(item: Item, out: Path) -> float:
    """Minutes of a core: those of the regime's runs that are done, else the plan's estimate, of tries in its proportion."""
    done = [
        path
        for path in (result_path(out, one) for one in items_of(item.regime) if one.seed is not None)
        if path.exists()
    ]
    if not done:
        return item.minutes
    measured = sum(core_minutes(read_json(path)) for path in done) / len(done)
    return item.minutes * measured / Item(item.regime, item.method, 0).minutes


def rehearsal(regimes: list[Any]) -> list[Any]:
    """The same regimes with two epochs and two seeds, on digits: shows in minutes that all of it runs."""
    return [
        replace(
            regime,
            images=1_500,
            epochs=2,
            seeds=2,
            draws=regime.draws[:2],
            changes=regime.changes | ({"imbalance": 5.0} if "imbalance" in regime.changes else {}),
        )
        for regime in regimes
    ]
