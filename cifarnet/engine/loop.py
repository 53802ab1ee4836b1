"""The training loop: epochs of steps. It stops in good order and loses nothing."""

import time
import warnings
from pathlib import Path
from typing import Any

import torch

from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.devices import determinism
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.data import Dataset, load, load_options
from cifarnet.engine.ema import measure_batch_norm
from cifarnet.engine.optim import learning_rate
from cifarnet.engine.step import raise_if_not_finite, train_step
from cifarnet.engine.train_state import TrainState
from cifarnet.engine.validate import evaluate_epoch, is_best, summarise
from cifarnet.models.checkpoint import save_model
from cifarnet.storage.run_folder import RunFolder

# Steps between two questions to the other ranks whether to stop, where asking would hold up the GPUs.
STOP_INTERVAL = 10


class Watcher:
    """Is told how training goes, on the first rank. This one keeps quiet, but for warnings; others may be told more."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        """Training ends, in whatever way."""

    def load(self, config: TrainConfig) -> Dataset:
        """Reads the data set, and may show how that goes."""
        return load(config.dataset, config.data_dir, **load_options(config))

    def start(self, run: TrainState, folder: RunFolder) -> None:
        """Training is about to begin, or to go on."""

    def step(self, run: TrainState) -> None:
        """After each step; reading `run.sums` waits for the device, so do it seldom."""

    def epoch(self, run: TrainState, record: dict[str, Any]) -> None:
        """After each epoch, with the line of metrics.jsonl."""

    def warn(self, message: str) -> None:
        """Something that the user should know; training goes on."""
        warnings.warn(message, stacklevel=2)

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
    with determinism(config.deterministic):
        if progress.epoch == 0 and progress.step == 0:
            run.save(folder.state)
        scores = None
        while progress.epoch < config.epochs:
            run_epoch(run, folder, watcher, stop)
            if config.swa and progress.epoch + 1 == config.epochs:
                finish_average(run)
            record = measure_training(run)
            progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
            run.sums.values.zero_()
            best = False
            if progress.epoch % config.eval_every == 0 or progress.epoch == config.epochs:
                scores = evaluate_epoch(run, record)
                best = is_best(run, record)
            progress.history.append(record)
            keep_epoch(run, folder, watcher, record, best)
            run.save(folder.state)
        return summarise(run, folder, scores)


def run_epoch(run: TrainState, folder: RunFolder, watcher: Watcher, stop: StopRequest) -> None:
    """One epoch, from the progress's step on."""
    config, progress = run.config, run.progress
    run.model.train()
    run.not_finite = torch.zeros_like(run.not_finite)
    started, before = time.perf_counter(), progress.seconds
    for images, labels in run.train.epoch(progress.epoch, start=progress.step):
        train_step(run, images, labels)
        progress.seconds = before + time.perf_counter() - started
        watcher.step(run)
        due = config.checkpoint_every and progress.step % config.checkpoint_every == 0 and progress.step < run.steps
        stopped = agreed_stop(run, stop)
        if stopped or due:
            raise_if_not_finite(run)
            run.save(folder.state)
        if stopped:
            raise Interrupted(stopped, folder.path, progress.epoch + 1, progress.step)
    raise_if_not_finite(run)  # waits for the device: the epoch takes until then
    progress.seconds = before + time.perf_counter() - started


def agreed_stop(run: TrainState, stop: StopRequest) -> int | None:
    """The number of the signal at which to stop after this step, or None: the same on all ranks.

    A signal may reach one of them alone. On GPUs they ask each other every STOP_INTERVAL steps, through main memory: that
    holds up the hosts, which run ahead of their GPUs, and not the GPUs.
    """
    if run.ranks.world == 1:
        return stop.number
    if run.device.type == "cuda" and run.progress.step % STOP_INTERVAL:
        return None
    return int(run.ranks.largest(torch.tensor(stop.number or 0))) or None


def keep_epoch(run: TrainState, folder: RunFolder, watcher: Watcher, record: dict[str, Any], best: bool) -> None:
    """Logs and shows the epoch that has ended, and saves its model."""
    if run.ranks.first:
        if warning := folder.log(run.progress.history):
            watcher.warn(warning)
        watcher.epoch(run, record)
    also: list[Path] = [folder.best] if best else []
    save_model(folder.last, run.result, run.info(record), run.ranks, *also)


def finish_average(run: TrainState) -> None:
    """The averaged weights get BatchNorm statistics of their own, from a pass over the training images."""
    assert run.average is not None
    started, config = time.perf_counter(), run.config
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batches = run.train.epoch(config.epochs)
    if config.dataset != SYNTHETIC:
        batches = ((images.contiguous(memory_format=layout), labels) for images, labels in batches)
    measure_batch_norm(run.average, batches, run.device, run.precision)
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
