"""One training step, whole, in the order in which it runs. The host does not wait for a GPU in it.

The batch comes augmented and normalised from the loader. Shapes: n images of this rank's part of a batch, C classes.
"""

from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Diverged, Failed
from cifarnet.core.torch_settings import autocast, measured_convolutions
from cifarnet.data.augment.mixup import draw_mix, mix_images
from cifarnet.data.augment.progressive import shrink, side_at
from cifarnet.engine.ema import average_share
from cifarnet.engine.optim import gradients, learning_rate, set_learning_rate
from cifarnet.engine.train_state import Forward, Mixture, TrainState
from cifarnet.losses import kernels
from cifarnet.models.classifier import Classifier

LOOK_INTERVAL = 50  # steps between two looks at a GPU's not-finite flag: each look waits for the device


def train_step(run: TrainState, images: Tensor, labels: Tensor) -> None:
    """Moves the weights by one step on images [n, 3, H, W] (features [n, D]) with labels [n].

    Raises:
        Failed: the loss or a gradient is not finite, or the head learns nothing.
    """
    config, step = run.config, run.step
    set_learning_rate(run.optimizer, learning_rate(config, step, run.all_steps))

    images, labels, mixture = mix(run, images, labels, step)
    if config.progressive:
        images = shrink(images, side_at(run.progress.epoch, config.epochs, config.progressive, config.image_size))
    if config.channels_last and images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)

    whole = run.train.size(run.progress.step) == config.batch_size
    with measured_convolutions(run.device, whole and not config.deterministic):
        if run.graph is not None and whole:
            run.graph.step(partial(update, run), images, labels)
        else:
            update(run, images, labels, mixture)

    if looks_later(run) and step % LOOK_INTERVAL == 0:
        raise_if_not_finite(run)
    share = average_share(config, step, run.all_steps)
    if run.average is not None and share > 0:
        run.averaging.update(share)
    run.progress.step += 1


def update(run: TrainState, images: Tensor, labels: Tensor, mixture: Mixture | None = None) -> None:
    """The device's part of a step, which a graph may record: the loss, its gradients, the sums, the new weights."""
    loss, correct = run.forward(images, labels, mixture)
    scale_loss_for_ddp(run, loss, len(labels)).backward()
    if run.step == 0 and (run.graph is None or run.graph.warming):
        check_head_learns(run)
    stop_before_not_finite(run, loss)
    count(run, loss, correct, len(labels))
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)


def mix(run: TrainState, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Mixture | None]:
    """The images mixed with their neighbours where that is asked for, their labels, and how they are mixed."""
    config = run.config
    drawn = draw_mix(config.mixup, config.cutmix, config.image_size, config.seed, step)
    if drawn is None:
        return images, labels, None
    share = torch.full((), drawn.share, device=run.device)
    images, others = mix_images(images, drawn), labels.roll(1)
    if run.train.neighbour:  # the first image belongs to the rank before: it was here to be mixed in
        images, labels, others = images[1:], labels[1:], others[1:]
    return images, labels, (others, share)


class BatchLoss(nn.Module):
    """(images, labels, mixture) -> (mean loss with its graph, correct answers): the part that torch.compile takes."""

    def __init__(self, model: Classifier, device: torch.device, precision: str) -> None:
        super().__init__()
        self.model, self.device, self.precision = model, device, precision

    def forward(self, images: Tensor, labels: Tensor, mixture: Mixture | None) -> tuple[Tensor, Tensor]:
        """`mixture` where images [n, 3, H, W] are mixed with others, else None; labels [n]."""
        head = self.model.head
        with autocast(self.device, self.precision):
            features = self.model.features(images)
        loss, correct = head.loss_and_correct(features, labels)
        if mixture is not None:
            others, share = mixture
            loss = share * loss + (1 - share) * head(features, others)
        return loss, correct.sum()


def compiled(loss: nn.Module, config: TrainConfig) -> Forward:
    """The module as a function, compiled where that is asked for."""
    if not config.compile:
        return loss
    if (tag := kernels.build_tag()) not in torch.compiler.config.cache_key_tag:  # beside the caller's own
        torch.compiler.config.cache_key_tag += tag
    # Each run for itself: else the ninth with other constants in a process would run uncompiled, with a line in torch's log.
    isolated: dict[str, Any] = (
        {"isolate_recompiles": True} if "isolate_recompiles" in signature(torch.compile).parameters else {}
    )
    return torch.compile(loss, **isolated)


def scale_loss_for_ddp(run: TrainState, loss: Tensor, images: int) -> Tensor:
    """The loss that a rank differentiates in place of the mean over its own `images`.

    Its mean over the ranks, which is what DistributedDataParallel makes of gradients, is the mean over the batch.
    """
    if run.ranks.world == 1 or run.model.head.whole_batch:
        return loss
    return loss * (images * run.ranks.world / run.train.size(run.progress.step))


def check_head_learns(run: TrainState) -> None:
    """The class prototypes must learn, unless they were frozen on request."""
    gradient = run.model.head.weight.grad
    learns = not run.config.frozen_head and run.config.prototypes == "learned"
    if learns and (gradient is None or not gradient.any()):
        raise Failed(
            "training",
            "the head got no gradient in the first step",
            "this is a bug; `frozen_head` allows it on purpose",
        )


def stop_before_not_finite(run: TrainState, loss: Tensor) -> None:
    """Stops training at a loss or gradient that is not finite, before the optimizer applies it.

    On CUDA the flag stays on the device: the fused optimizer skips the step by itself (`found_inf`), and the host looks
    every LOOK_INTERVAL steps and before anything is saved. (Muon is not fused: it may spoil the weights in memory until the
    host looks, and these are then thrown away.) Elsewhere looking costs nothing and is done each step.
    """
    total = torch.nn.utils.get_total_norm(gradients(run.optimizer)) + loss.detach()
    run.not_finite.clamp_(min=(~torch.isfinite(total)).float())
    if looks_later(run):
        run.optimizer.found_inf = run.not_finite  # type: ignore[attr-defined]
    else:
        raise_if_not_finite(run)


def looks_later(run: TrainState) -> bool:
    """Does the host look at the flag every LOOK_INTERVAL steps alone?"""
    return run.device.type == "cuda"


def raise_if_not_finite(run: TrainState) -> None:
    """Reads the flag, which waits for the device; raises Failed where it is set, on all ranks."""
    if run.ranks.largest(run.not_finite).item() > 0:
        raise Diverged(
            "training",
            f"diverged: the loss or a gradient is not finite in epoch {run.progress.epoch + 1}",
            "checkpoints are kept as they were; try a smaller `lr`, or `precision=fp32`",
        )


@torch.no_grad()
def count(run: TrainState, loss: Tensor, correct: Tensor, images: int) -> None:
    """Adds the step to the running sums, on the device."""
    run.sums.add(loss, correct, images)
    if run.config.log_grad and run.ranks.first:  # the gradients are those of all ranks
        learned = [p.grad for p in run.model.parameters() if p.grad is not None and p.dim() > 1]
        run.sums.add_gradients(learned[0].norm(), learned[-1].norm())
