"""The one call that trains: configuration -> run folder. The command line, the scripts and a notebook make it alike."""

import os
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import connect
from cifarnet.core.errors import Refused
from cifarnet.core.fields import check_kind, check_path
from cifarnet.core.signals import StopRequest
from cifarnet.core.torch_settings import own_modes
from cifarnet.data import Dataset
from cifarnet.data.given import checked_dataset, only_in_python
from cifarnet.data.known_folders import remember_folder
from cifarnet.data.registry import DATASETS
from cifarnet.engine.conflicts import check_options
from cifarnet.engine.launch import begin, prepare, take_folder
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.norm_check import norm_warning
from cifarnet.losses.auto_scale import misfits
from cifarnet.storage.run_folder import RunFolder


@own_modes()
@torch.inference_mode(False)  # in a caller's torch.no_grad() or torch.inference_mode() too, gradients are needed here
def fit(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    dataset: Dataset | None = None,
    about: Mapping[str, str] | None = None,
    watcher: Watcher | None = None,
    stop: StopRequest | None = None,
    trial: bool = False,
) -> Path:
    """Trains, and returns the run's folder; it draws nothing.

    Under torchrun every rank makes the same call; the first one alone holds the folder and tells the watcher.

    Args:
        config: everything that decides what is computed.
        out: the run's folder; None makes the next free runs/<arch>-<loss>-<dataset>-<n>.
        resume: go on with the run in `out`, under the configuration that it was begun with (epochs may be more).
        overwrite: start again in a folder that holds a run.
        init_from: a checkpoint or run whose weights to start from.
        dataset: the data, already loaded, checked by `checked_dataset`; None loads what `config` names.
        about: kept in config.json beside the options, for the list of runs: `recipe`, `command`.
        watcher: is told how training goes.
        stop: ends training in good order once its `number` is set; None: SIGTERM and Ctrl-C do.
        trial: of a search for settings: measured on the held-out training images (`val_fraction`) alone, after the last
            epoch; the test images are not looked at, and runs/latest does not lead to it.

    Raises:
        Refused: options that cannot be, data that cannot be read, a folder that cannot be taken; nothing was begun.
        Failed: training cannot go on; checkpoints are as they were.
        Interrupted: a signal came; the state of the last whole step is saved.
    """
    check_arguments(config, out, init_from, about, watcher, stop, resume=resume, overwrite=overwrite, trial=trial)
    check_options(config)
    if dataset is not None:
        dataset = checked_dataset(dataset, config)
    elif resume and config.dataset not in DATASETS:
        raise only_in_python(config.dataset, "cifarnet.fit")
    if trial and not config.val_fraction:
        raise Refused("val_fraction", "is 0, and a trial is measured on held-out images", "hold out a part, as in 0.1")
    watcher = Watcher() if watcher is None else watcher
    source = Path(init_from) if init_from is not None else None
    with connect(config.device) as ranks, ExitStack() as held:
        if not ranks.first:
            watcher = Watcher()
        wanted = Path(out) if out is not None else None
        path, resume, precision = ranks.of_first(lambda: take_folder(held, config, wanted, resume, overwrite))
        folder = RunFolder(path)
        if ranks.first:
            folder.remember_place()
        if config.precision == "auto":
            config = replace(config, precision=precision)
        run, warnings = prepare(
            config,
            ranks,
            lambda: watcher.load(config) if dataset is None else dataset,
            state=folder.state if resume else None,
            init_from=source,
        )
        run.trial = trial
        head = run.model.head
        if head.options is not None and not trial:
            warnings += misfits(head.options, len(run.classes), head.in_features)
        if config.data_dir is not None:  # kept as a whole path: found again from another folder
            run.config = replace(run.config, data_dir=os.path.abspath(config.data_dir))
            remember_folder(config.data_dir)
        ranks.of_first(lambda: begin(run, folder, resume, about or {}))
        if ranks.first:
            for warning in warnings:
                watcher.warn(warning)
            watcher.start(run, folder)
        with watcher, nullcontext(stop) if stop is not None else StopRequest(together=ranks.world > 1) as asked:
            summary = train(run, folder, watcher, asked)
        if ranks.first:
            watcher.finish(run, folder, summary)
            if not trial and (backwards := norm_warning(run)):
                watcher.warn(backwards)
    return path


def check_arguments(config: Any, out: Any, init_from: Any, about: Any, watcher: Any, stop: Any, **flags: Any) -> None:
    """Raises Refused for an argument of `fit` that is of another type than it takes, or an empty path."""
    fix = "give a cifarnet.TrainConfig; TrainConfig.from_dict(values) makes one of a mapping"
    check_kind("config", config, TrainConfig, fix)
    for name, place in (("out", out), ("init_from", init_from)):
        check_path(name, place)
        if place is not None and not os.fspath(place):
            raise Refused(name, "is empty", "name a folder, or leave it out")
    check_kind("about", about, (Mapping, NoneType), "give a mapping of text to text")
    check_kind(
        "watcher", watcher, (Watcher, NoneType), "give an object of a class that inherits cifarnet.engine.loop.Watcher"
    )
    check_kind("stop", stop, (StopRequest, NoneType), "give a StopRequest, or leave it out")
    for name, flag in flags.items():
        check_kind(name, flag, bool, "give True or False")
