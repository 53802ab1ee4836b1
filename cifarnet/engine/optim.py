"""The optimizer and its learning rate: both follow from the configuration, so a checkpoint need not carry either's rules."""

import math

import torch
from torch import Tensor, nn

from cifarnet.core.config import TrainConfig
from cifarnet.engine.muon import Muon

ONECYCLE_START, ONECYCLE_END = 25.0, 1e4  # OneCycleLR's div_factor and final_div_factor


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """adamw, adam, sgd (Nesterov) or muon over the parameters that learn; fused, so that one launch updates all of them.

    muon (not fused) takes the filters of convolutions, tensors of four dimensions, and leaves the rest to sgd. What the head
    names as `undecayed` is a group of its own, without weight decay.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    free = getattr(getattr(model, "head", None), "undecayed", ())
    undecayed = [parameter for name, parameter in named if name in {f"head.{one}" for one in free}]
    parameters = [parameter for _, parameter in named if all(parameter is not one for one in undecayed)]
    optimizer = _optimizer(parameters, config)
    if undecayed:
        speed = {"filters": False, "speed": config.rest_lr} if config.optimizer == "muon" else {}
        optimizer.add_param_group({"params": undecayed, "weight_decay": 0.0, **speed})
    return optimizer


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "muon":
        filters = [parameter for parameter in parameters if parameter.dim() == 4]
        rest = [parameter for parameter in parameters if parameter.dim() != 4]
        return Muon(filters, rest, config.lr, config.momentum, config.weight_decay, config.rest_lr)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of step `step` (from 0) of `total`.

    cosine, linear: linear warm-up from lr/warm-up steps to lr, then half a cosine, or a line, to 0 at the end. onecycle: as torch's
    OneCycleLR, half a cosine up from lr/25 and half a cosine down to lr/250,000, from the first step on where the warm-up is
    no longer than that. constant: lr. With --swa the rate stays what it is where the average begins.
    """
    if config.swa and total > 1:
        step = min(step, swa_start(config.swa, total))
    if config.schedule == "constant" or total <= 1:
        return config.lr
    warm = config.warmup * total
    if config.schedule in ("cosine", "linear"):
        if step + 1 < warm:
            return config.lr * (step + 1) / warm
        part = max(step + 1 - warm, 0) / (total - warm + 1) if total > warm else 0.0
        return config.lr * (1 - part) if config.schedule == "linear" else _cosine(config.lr, 0.0, part)
    low, end = config.lr / ONECYCLE_START, config.lr / ONECYCLE_START / ONECYCLE_END
    peak = warm - 1  # the step with the highest rate; before the first one where there is no warm-up
    if peak > 0 and step <= peak:
        return _cosine(low, config.lr, step / peak)
    return _cosine(config.lr, end, (step - peak) / max(total - 1 - peak, 1e-9))


def swa_start(swa: float, total: int) -> int:
    """The first step (from 0) of the part that is averaged, of `total` steps; at least the last is."""
    return min(math.floor(total - swa * total + 1e-9), total - 1)  # (1 - 0.9) * 10 is a hair below 1


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the rate of every parameter group; of one whose rate is a number on the device, there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def keep_rate_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """The rate of every group becomes a number on the device, so that a recorded step reads that of its replay."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device)
        if "capturable" in group:
            group["capturable"] = True


def gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The gradients that the optimizer is about to apply."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
