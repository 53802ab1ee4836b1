"""The training loop: epochs of steps. It stops in good order and loses nothing."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Diverged, Interrupted, Refused, printable
from cifarnet.core.signals import StopRequest
from cifarnet.core.torch_settings import determinism
from cifarnet.core.warn import warn
from cifarnet.data import Dataset, load, load_options
from cifarnet.data.given import check_place
from cifarnet.engine.ema import measure_batch_norm
from cifarnet.engine.optim import learning_rate
from cifarnet.engine.same_data import info_of
from cifarnet.engine.step import raise_if_not_finite, train_step
from cifarnet.engine.train_state import TrainState
from cifarnet.engine.validate import UntilStopped, evaluate_epoch, note_best, summarise
from cifarnet.models.checkpoint import save_model
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import mark_latest

# Steps between two questions to the other ranks whether to stop, where asking would hold up the GPUs.
STOP_INTERVAL = 10

T = TypeVar("T")


class Watcher:
    """Is told how training goes, on the first rank. This one keeps quiet, but for warnings; others may be told more."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        """Training ends, in whatever way."""

    def load(self, config: TrainConfig) -> Dataset:
        """Reads the data set, and may show how that goes. Raises Refused also where other images lie than those of an unnamed `dataset`."""
        check_place(config)
        return load(config.dataset, config.data_dir, **load_options(config))

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Training is about to begin, or to go on."""

    def step(self, run: TrainState) -> None:
        """After each step; reading `run.sums` waits for the device, so do it seldom."""

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """After each epoch, with the line of metrics.jsonl; its model is saved."""

    def warn(self, message: str) -> None:
        """Something that the user should know; training goes on."""
        warn(message)

    def finish(self, run: TrainState, folder: RunFolder, summary: dict[str, Any]) -> None:
        """Training is done, and its summary written."""


def train(run: TrainState, folder: RunFolder, watcher: Watcher, stop: StopRequest) -> dict[str, Any]:
    """Trains from where the run's progress stands to its last epoch; returns the summary, also written to the folder.

    All ranks call it, each with its state; the first one alone tells the watcher and writes.

    Raises:
        Failed: a loss or gradient that is not finite (nothing of that step is kept), a checkpoint that cannot be written.
        Interrupted: a signal came; the state of the last whole step is saved.
    """
    config, progress = run.config, run.progress
    with determinism(config.deterministic), run.freed_memory_kept(), divergence_noted(run, folder):
        if progress.epoch == 0 and progress.step == 0:
            save_state(run, folder)
        else:
            make_up_for_lost(run, folder)
        scores, until_stopped = None, partial(until_signal, run=run, folder=folder, stop=stop)
        while progress.epoch < config.epochs:
            run_epoch(run, folder, watcher, stop)
            save_state(run, folder)  # with all steps of the epoch done: a resume from here goes on with its evaluation
            if config.swa and progress.epoch + 1 == config.epochs:
                finish_average(run, until_stopped)
            record = measure_training(run)
            progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
            run.sums.values.zero_()
            best = False
            if progress.epoch % config.eval_every == 0 or progress.epoch == config.epochs:
                scores = evaluate_epoch(run, record, until_stopped)
                best = note_best(run, record)
            progress.history.append(record)
            keep_epoch(run, folder, watcher, record, best)
            if progress.epoch == config.epochs:
                save_state(run, folder)
        return summarise(run, folder, scores, until_stopped)


@contextmanager
def divergence_noted(run: TrainState, folder: RunFolder) -> Iterator[None]:
    """A training that diverges in here, in a step or when it is measured, is noted in its folder for the list of runs."""
    try:
        yield
    except Diverged as error:
        if run.ranks.first:
            folder.write_diverged(str(error), len(run.progress.history) + 1)
        raise


def save_state(run: TrainState, folder: RunFolder) -> None:
    """Writes the training state of this moment, unless the folder was moved away. Raises Failed."""
    run.ranks.of_first(folder.check_held)
    run.save(folder.state)


def until_signal(batches: Iterable[T], run: TrainState, folder: RunFolder, stop: StopRequest) -> Iterator[T]:
    """The batches of an evaluation, until a signal comes. Raises Interrupted; the state was saved before."""
    progress = run.progress
    for number, batch in enumerate(batches):
        if stopped := agreed_stop(run, stop, number):
            at = (progress.epoch + 1, progress.step) if progress.step else (progress.epoch, run.steps)
            raise Interrupted(stopped, folder.path, *at)
        yield batch


def run_epoch(run: TrainState, folder: RunFolder, watcher: Watcher, stop: StopRequest) -> None:
    """One epoch, from the progress's step on."""
    config, progress = run.config, run.progress
    run.model.train()
    run.not_finite.zero_()
    started, before = time.perf_counter(), progress.seconds
    if progress.step == 0:
        run.model.head.begin_epoch(progress.epoch, config.epochs)
    for images, labels in run.train.epoch(progress.epoch, start=progress.step):
        train_step(run, images, labels)
        progress.seconds = before + time.perf_counter() - started
        watcher.step(run)
        due = config.checkpoint_every and progress.step % config.checkpoint_every == 0 and progress.step < run.steps
        stopped = agreed_stop(run, stop, progress.step)
        if stopped or due:
            raise_if_not_finite(run)
            save_state(run, folder)
        if stopped:
            raise Interrupted(stopped, folder.path, progress.epoch + 1, progress.step)
    raise_if_not_finite(run)  # waits for the device: the epoch takes until then
    progress.seconds = before + time.perf_counter() - started


def agreed_stop(run: TrainState, stop: StopRequest, step: int) -> int | None:
    """The number of the signal at which to stop after this step, or this batch of an evaluation, or None: the same on all ranks.

    A signal may reach one of them alone. On GPUs they ask each other every STOP_INTERVAL steps, through main memory: that
    holds up the hosts, which run ahead of their GPUs, and not the GPUs.
    """
    if run.ranks.world == 1:
        return stop.number
    if run.device.type == "cuda" and step % STOP_INTERVAL:
        return None
    return int(run.ranks.largest(torch.tensor(stop.number or 0))) or None


def keep_epoch(run: TrainState, folder: RunFolder, watcher: Watcher, record: dict[str, Any], best: bool) -> None:
    """Logs the epoch that has ended, saves its model, and then shows it."""
    if run.ranks.first and (warning := folder.log(run.progress.history)):
        watcher.warn(warning)
    run.ranks.of_first(folder.check_held)
    also: list[Path] = [folder.best] if best else []
    save_model(folder.last, run.result, run.info(record), run.ranks, *also)
    if run.ranks.first and run.progress.epoch == 1 and not run.trial:
        mark_latest(folder)
    if run.ranks.first:
        watcher.epoch(run, record)


def make_up_for_lost(run: TrainState, folder: RunFolder) -> None:
    """A resumed run whose checkpoints are gone: at its end the last one comes back, whose weights the state has.

    A best one is lost. A run that goes on has none then, until an epoch to come is one. So it is with checkpoints of another
    moment than the state's, as in a folder that was copied while the run trained.

    Raises:
        Refused: it is at its end, and the best one, whose scores the summary has, is gone.
    """
    progress, ended = run.progress, run.progress.epoch >= run.config.epochs
    last, best = run.ranks.of_first(lambda: (info_of(folder, folder.last), info_of(folder, folder.best)))
    if ended and (last is None or last.epoch < progress.epoch):
        save_model(folder.last, run.result, run.info(progress.history[-1]), run.ranks)
    if progress.best is None or (best is not None and best.metrics.get("val_accuracy") == progress.best):
        return
    if ended:
        why = "is gone" if best is None else f"is of epoch {best.epoch}, the best one is gone"
        fix = f"take {folder.last.name} of that run, or train on with more `epochs`"
        raise Refused(printable(folder.best), f"{why}, and the summary's scores are of it", fix)
    progress.best = None


def finish_average(run: TrainState, until_stopped: UntilStopped = iter) -> None:
    """The averaged weights get BatchNorm statistics of their own, from a pass over the training images."""
    assert run.average is not None
    started, config = time.perf_counter(), run.config
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batches = run.train.epoch(config.epochs)
    if config.dataset != SYNTHETIC:
        batches = ((images.contiguous(memory_format=layout), labels) for images, labels in batches)
    measure_batch_norm(run.average, until_stopped(batches), run.device, run.precision)
    run.progress.seconds += time.perf_counter() - started


def measure_training(run: TrainState) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, so far."""
    config, progress, images = run.config, run.progress, run.images
    sums = run.sums.read(run.ranks)
    record = {
        "epoch": progress.epoch + 1,
        "lr": learning_rate(config, (progress.epoch + 1) * run.steps - 1, run.all_steps),
        "train_loss": sums.loss / images,
        "train_accuracy": sums.correct / images,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(images / max(progress.seconds, 1e-9), 1),
    }
    if config.log_grad:
        record |= {
            "grad_norm_first": sums.first_gradient / run.steps,
            "grad_norm_last": sums.last_gradient / run.steps,
        }
    return record
