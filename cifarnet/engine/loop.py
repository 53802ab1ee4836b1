"""The training loop: it never waits for the device within an epoch's steps, stops in good order, and loses nothing."""

import time
from typing import Any

import torch
from torch import Tensor

from cifarnet.core.config import SYNTHETIC
from cifarnet.core.devices import determinism, measured_convolutions
from cifarnet.core.errors import Interrupted
from cifarnet.core.signals import StopRequest
from cifarnet.data.augment.mixup import draw_mix, mix_images
from cifarnet.data.augment.progressive import shrink, side_at
from cifarnet.engine.ema import average_share, measure_batch_norm
from cifarnet.engine.evaluate import evaluate_epoch, is_best, summarise
from cifarnet.engine.guard import Guard, check_head_learns
from cifarnet.engine.metrics import FewScores, Scores
from cifarnet.engine.optim import learning_rate, set_learning_rate
from cifarnet.engine.step import Mixture
from cifarnet.engine.train_state import Session
from cifarnet.models.checkpoint import save_model
from cifarnet.storage.run_folder import RunFolder

STOP_INTERVAL = (
    10  # steps between two questions to the other ranks whether to stop, where asking would hold up the GPUs
)


class Watcher:
    """Is told how training goes; the command line draws its progress bar from it. This one keeps quiet."""

    def step(self, epoch: int, step: int, steps: int, totals: Tensor, seen: int) -> None:
        """After each step; reading `totals` waits for the device, so do it seldom."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After each epoch, with the line of metrics.jsonl."""

    def warn(self, message: str) -> None:
        """Something that the user should know; training goes on."""


def train(session: Session, folder: RunFolder, watcher: Watcher, stop: StopRequest) -> dict[str, Any]:
    """Trains from where the session's progress stands to its last epoch; returns the summary, also written to the folder.

    All ranks call it, each with its session; the first one alone tells the watcher and writes.

    Raises:
        Failed: a loss or gradient that is not finite (nothing of that step is kept), a checkpoint that cannot be written.
        Interrupted: a signal came; the state of the last whole step is saved.
    """
    config, progress = session.config, session.progress
    with determinism(config.deterministic):
        if progress.epoch == 0 and progress.step == 0:
            session.save(folder.state)
        scores: Scores | FewScores | None = None
        while progress.epoch < config.epochs:
            run_epoch(session, folder, watcher, stop)
            if config.swa and progress.epoch + 1 == config.epochs:
                finish_average(session)
            record = measure_training(session)
            progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
            session.totals.zero_()
            best = False
            if progress.epoch % config.eval_every == 0 or progress.epoch == config.epochs:
                scores = evaluate_epoch(session, record)
                best = is_best(session, record)
            progress.history.append(record)
            keep_epoch(session, folder, watcher, record, best)
            session.save(folder.state)
        return summarise(session, folder, scores)


def keep_epoch(session: Session, folder: RunFolder, watcher: Watcher, record: dict[str, Any], best: bool) -> None:
    """Logs and shows the epoch that has ended, and saves its model."""
    if session.ranks.first:
        if warning := folder.log(session.progress.history):
            watcher.warn(warning)
        watcher.epoch(record)
    save_model(folder.last, session.result, session.info(record), session.ranks, *([folder.best] if best else []))


def run_epoch(session: Session, folder: RunFolder, watcher: Watcher, stop: StopRequest) -> None:
    """One epoch from the progress's step on: forward, backward, guard, update; nothing here reads the device."""
    config, progress, optimizer = session.config, session.progress, session.optimizer
    session.model.train()
    started, before = time.perf_counter(), progress.seconds
    guard = Guard(session)
    side = side_at(progress.epoch, config.epochs, config.progressive, config.image_size)
    for images, labels in session.train.epoch(progress.epoch, start=progress.step):
        step = progress.epoch * session.steps + progress.step
        set_learning_rate(optimizer, learning_rate(config, step, config.epochs * session.steps))
        images, labels, mixture = mix(session, images, labels, step)
        if config.progressive:
            images = shrink(images, side)
        if config.channels_last and images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        whole = session.train.size(progress.step) == config.batch_size
        with measured_convolutions(session.device, whole and not config.deterministic):
            loss, hits = session.forward(images, labels, mixture)
            session.whole_loss(loss, len(labels)).backward()
        if step == 0:
            check_head_learns(session)
        guard.before_update(loss)
        count_step(session, loss, hits, len(labels))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average_step(session, step)
        progress.step += 1
        progress.seconds = before + time.perf_counter() - started
        watcher.step(progress.epoch + 1, progress.step, session.steps, session.totals, session.seen(progress.step))
        due = config.checkpoint_every and progress.step % config.checkpoint_every == 0 and progress.step < session.steps
        stopped = agreed_stop(session, stop)
        if stopped or due:
            guard.look()
            session.save(folder.state)
        if stopped:
            raise Interrupted(
                stopped, "training", f"stopped by signal {stopped} in epoch {progress.epoch + 1}, step {progress.step}",
                f"go on with: cifarnet train --resume --out {folder.path}",
            )  # fmt: skip
    guard.look()  # waits for the device: the epoch takes until then
    progress.seconds = before + time.perf_counter() - started


def agreed_stop(session: Session, stop: StopRequest) -> int | None:
    """The number of the signal at which to stop after this step, or None: the same on all ranks.

    A signal may reach one of them alone. On GPUs they ask each other every STOP_INTERVAL steps, through main memory: that
    holds up the hosts, which run ahead of their GPUs, and not the GPUs.
    """
    if session.ranks.world == 1:
        return stop.number
    if session.device.type == "cuda" and session.progress.step % STOP_INTERVAL:
        return None
    return int(session.ranks.largest(torch.tensor(stop.number or 0))) or None


def mix(session: Session, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Mixture | None]:
    """The images mixed with their neighbours where that is asked for, their labels, and how they are mixed."""
    config = session.config
    drawn = draw_mix(config.mixup, config.cutmix, config.image_size, config.seed, step)
    if drawn is None:
        return images, labels, None
    share = torch.full((), drawn.share, device=session.device)
    images, others = mix_images(images, drawn), labels.roll(1)
    if session.train.neighbour:  # it came first, and has lent its pixels and its label
        images, labels, others = images[1:], labels[1:], others[1:]
    return images, labels, (others, share)


def average_step(session: Session, step: int) -> None:
    """Takes the weights of this step into their average, where one is kept."""
    share = average_share(session.config, step, session.config.epochs * session.steps)
    if session.average is not None and share > 0:
        session.averaging.update(share)


def finish_average(session: Session) -> None:
    """The averaged weights get BatchNorm statistics of their own, from a pass over the training images."""
    assert session.average is not None
    started, config = time.perf_counter(), session.config
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batches = session.train.epoch(config.epochs)
    if config.dataset != SYNTHETIC:
        batches = ((images.contiguous(memory_format=layout), labels) for images, labels in batches)
    measure_batch_norm(session.average, batches, session.device, session.precision)
    session.progress.seconds += time.perf_counter() - started


@torch.no_grad()
def count_step(session: Session, loss: Tensor, hits: Tensor, images: int) -> None:
    """Adds a step to the running sums, on the device."""
    totals = session.totals
    totals[0] += loss.detach() * images
    totals[1] += hits
    if session.config.log_grad and session.ranks.first:  # the gradients are those of all ranks
        learned = [p for p in session.model.parameters() if p.grad is not None and p.dim() > 1]
        totals[2] += learned[0].grad.norm()  # type: ignore[union-attr]
        totals[3] += learned[-1].grad.norm()  # type: ignore[union-attr]


def measure_training(session: Session) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, so far."""
    config, progress, images = session.config, session.progress, session.images
    loss, hits, first, last = session.ranks.sum(session.totals).tolist()
    step = (progress.epoch + 1) * session.steps - 1
    record = {
        "epoch": progress.epoch + 1,
        "lr": learning_rate(config, step, config.epochs * session.steps),
        "train_loss": loss / images,
        "train_accuracy": hits / images,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(images / max(progress.seconds, 1e-9), 1),
    }
    if config.log_grad:
        record |= {"grad_norm_first": first / session.steps, "grad_norm_last": last / session.steps}
    return record
