"""The training loop: it never waits for the device within an epoch's steps, stops in good order, and loses nothing."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from cifarnet.averaging import average_share, measure_batch_norm, update_average
from cifarnet.checkpoint import load_model, save_model
from cifarnet.data.mixing import draw_mix, mix_images
from cifarnet.data.progressive import shrink, side_at
from cifarnet.devices import determinism, send
from cifarnet.errors import Failed, Interrupted
from cifarnet.evaluate import Scores, collect_logits, score
from cifarnet.optim import gradients, learning_rate, set_learning_rate
from cifarnet.runs import RunFolder
from cifarnet.session import Session
from cifarnet.signals import StopRequest

GUARD_INTERVAL = 50  # steps between two looks at the device's not-finite flag, where looking would stall it


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

    Raises:
        Failed: a loss or gradient that is not finite (nothing of that step is kept), a checkpoint that cannot be written.
        Interrupted: a signal came; the state of the last whole step is saved.
    """
    config, progress = session.config, session.progress
    with determinism(config.deterministic):
        if progress.epoch == 0 and progress.step == 0:
            session.save(folder.state)
        scores: Scores | None = None
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
            if warning := folder.log(progress.history):
                watcher.warn(warning)
            watcher.epoch(record)
            save_model(folder.last, session.result, session.info(record))
            if best:
                save_model(folder.best, session.result, session.info(record))
            session.save(folder.state)
        return summarise(session, folder, scores)


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
        images, share = mix(session, images, step)
        images = shrink(images, side)
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss, hits = session.forward(images, labels, share)
        loss.backward()
        if step == 0:
            check_head_learns(session)
        guard.before_update(loss)
        count_step(session, loss, hits, len(labels))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average_step(session, step)
        progress.step += 1
        progress.seconds = before + time.perf_counter() - started
        seen = min(progress.step * config.batch_size, session.images)
        watcher.step(progress.epoch + 1, progress.step, session.steps, session.totals, seen)
        due = config.checkpoint_every and progress.step % config.checkpoint_every == 0 and progress.step < session.steps
        if stop.number is not None or due:
            guard.look()
            session.save(folder.state)
        if stop.number is not None:
            raise Interrupted(
                stop.number, "training", f"stopped by signal {stop.number} in epoch {progress.epoch + 1}, step {progress.step}",
                f"go on with: cifarnet train --resume --out {folder.path}",
            )  # fmt: skip
    guard.look()  # waits for the device: the epoch takes until then
    progress.seconds = before + time.perf_counter() - started


def mix(session: Session, images: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
    """The images mixed with their neighbours where that is asked for, and the share of their own label."""
    config = session.config
    drawn = draw_mix(config.mixup, config.cutmix, config.image_size, config.seed, step)
    if drawn is None:
        return images, None
    return mix_images(images, drawn), send(torch.tensor(drawn.share), session.device)


def average_step(session: Session, step: int) -> None:
    """Takes the weights of this step into their average, where one is kept."""
    share = average_share(session.config, step, session.config.epochs * session.steps)
    if session.average is not None and share > 0:
        update_average(session.average, session.model, share)


def finish_average(session: Session) -> None:
    """The averaged weights get BatchNorm statistics of their own, from a pass over the training images."""
    assert session.average is not None
    started, config = time.perf_counter(), session.config
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batches = session.train.epoch(config.epochs)
    laid_out = ((images.contiguous(memory_format=layout), labels) for images, labels in batches)
    measure_batch_norm(session.average, laid_out, session.device, session.precision)
    session.progress.seconds += time.perf_counter() - started


class Guard:
    """Stops training at a loss or gradient that is not finite, before the optimizer applies it.

    On CUDA the flag stays on the device: the fused optimizer skips the step by itself (`found_inf`), and the host looks
    every GUARD_INTERVAL steps and before anything is saved. Elsewhere looking costs nothing and is done each step.
    """

    def __init__(self, session: Session) -> None:
        self.optimizer, self.progress = session.optimizer, session.progress
        self.deferred = session.device.type == "cuda"
        self.bad = torch.zeros((), device=session.device)

    def before_update(self, loss: Tensor) -> None:
        """Call with the gradients in place and not yet applied."""
        total = torch.nn.utils.get_total_norm(gradients(self.optimizer)) + loss.detach()
        self.bad = torch.maximum(self.bad, (~torch.isfinite(total)).float())
        if self.deferred:
            self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        if not self.deferred or self.progress.step % GUARD_INTERVAL == 0:
            self.look()

    def look(self) -> None:
        """Reads the flag; raises Failed where it is set."""
        if self.bad.item() > 0:
            raise Failed(
                "training", f"the loss or a gradient is not finite in epoch {self.progress.epoch + 1}",
                "checkpoints are kept as they were; try a smaller --lr, or --precision fp32",
            )  # fmt: skip


@torch.no_grad()
def count_step(session: Session, loss: Tensor, hits: Tensor, images: int) -> None:
    """Adds a step to the running sums, on the device."""
    totals = session.totals
    totals[0] += loss.detach() * images
    totals[1] += hits
    if session.config.log_grad:
        learned = [p for p in session.model.parameters() if p.grad is not None and p.dim() > 1]
        totals[2] += learned[0].grad.norm()  # type: ignore[union-attr]
        totals[3] += learned[-1].grad.norm()  # type: ignore[union-attr]


def check_head_learns(session: Session) -> None:
    """The class prototypes must learn, unless they were frozen on request."""
    gradient = session.model.head.weight.grad
    if not session.config.frozen_head and (gradient is None or not gradient.any()):
        raise Failed(
            "training",
            "the head got no gradient in the first step",
            "this is a bug; --frozen-head allows it on purpose",
        )


def measure_training(session: Session) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, so far."""
    config, progress, images = session.config, session.progress, session.images
    loss, hits, first, last = session.totals.tolist()
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


def evaluate_epoch(session: Session, record: dict[str, Any]) -> Scores:
    """Adds loss and accuracy on the test split (and the validation split) to `record`; returns the test scores."""
    if session.validation is not None:
        held_out = evaluate_on(session, "validation")
        record |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
    scores = evaluate_on(session, "test")
    record |= {"test_loss": scores.loss, "test_accuracy": scores.accuracy}
    return scores


def evaluate_on(session: Session, name: str) -> Scores:
    """Scores of the model as it is on `test` or `validation`."""
    loader = getattr(session, name)
    flip = session.config.tta
    logits, labels = collect_logits(session.result, loader.epoch(0), session.device, session.precision, flip)
    return score(logits, labels, session.classes)


def is_best(session: Session, record: dict[str, Any]) -> bool:
    """Whether the validation accuracy is the best so far; a metric that is not a number never is."""
    accuracy = record.get("val_accuracy")
    if accuracy is None or not math.isfinite(accuracy) or not math.isfinite(record["val_loss"]):
        return False
    if session.progress.best is not None and accuracy <= session.progress.best:
        return False
    session.progress.best = accuracy
    return True


def summarise(session: Session, folder: RunFolder, scores: Scores | None) -> dict[str, Any]:
    """Writes summary.json: the test scores of `best` where a validation split chose it, else of the last epoch."""
    if folder.best.exists():
        best, _ = load_model(folder.best)
        session.result.load_state_dict(best.state_dict())
        scores = None
    if scores is None:
        scores = evaluate_on(session, "test")
    summary = {
        "run": str(folder.path),
        "checkpoint": str(folder.best if folder.best.exists() else folder.last),
        "arch": session.config.arch,
        "loss": session.config.loss,
        "dataset": session.config.dataset,
        "parameters": sum(parameter.numel() for parameter in session.model.parameters()),
        "epochs": session.progress.epoch,
        "seconds": round(sum(record["seconds"] for record in session.progress.history), 1),
        "device": str(session.device),
        "precision": session.precision,
        "backend": session.backend,
        "test": scores.to_dict(),
    }
    folder.write_summary(summary)
    return summary
