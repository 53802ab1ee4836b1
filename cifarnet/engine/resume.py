"""The training state <-> one safetensors file: weights, optimizer and progress of the same step, so that a resume is exact.

Nothing random is in it: order and augmentation follow from (seed, epoch, position), the learning rate from the step.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.fields import LARGEST, is_number
from cifarnet.data.identity import DataIdentity
from cifarnet.engine.same_run import saved_versions
from cifarnet.models.checkpoint import FORMAT, compare, contiguous, read_here, read_tensors, rows_of
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import current_versions
from cifarnet.storage.atomic import write_file
from cifarnet.storage.sharded_file import INDEX, Rows, TensorSet, existing, metadata_of, write_set


@dataclass
class RunProgress:
    """Where a run stands: epochs done, steps done in the next one, and what was measured so far.

    seconds: spent in the unfinished epoch; history: the records of metrics.jsonl; best: the best validation accuracy.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    path: Path,
    models: dict[str, Classifier],
    optimizer: torch.optim.Optimizer,
    sums: Tensor,
    progress: RunProgress,
    config: TrainConfig,
    data: DataIdentity,
    ranks: Ranks = ALONE,
) -> None:
    """Writes the state atomically; of several ranks all call it. With a head whose rows lie apart it is a set of files (see `storage.sharded_file`).

    Args:
        models: "model", and "average" where a running average is kept.
        sums: the running sums of the unfinished epoch, [4]; of several ranks each one's, [ranks, 4].
        data: what the run trains on.
        ranks: those that train together; the first one writes all but what lies apart.

    Raises:
        Failed: the file cannot be written.
    """
    tensors: dict[str, Tensor | Rows] = {}
    for key, model in models.items():
        tensors |= {f"{key}.{name}": value for name, value in rows_of(model).items()}
    model = models["model"]
    apart = [model.get_parameter(name) for name in model.apart]
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                rows = value.dim() > 0 and any(parameter is one for one in apart)
                tensors[f"optimizer.{index}.{name}"] = Rows(value, model.head.classes.start) if rows else value
    tensors["totals"] = sums
    metadata = {"format": FORMAT, "kind": "state", "config": json.dumps(config.to_dict())}
    metadata |= {"ranks": str(ranks.world), "data": data.to_json()}
    metadata |= {"progress": json.dumps(progress.__dict__), "versions": json.dumps(current_versions())}
    if apart:
        write_set(path, tensors, metadata, ranks)
    elif ranks.first:
        whole = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
        write_file(path, save(contiguous(whole), metadata))


def load_state(
    path: Path,
    models: dict[str, Classifier],
    optimizer: torch.optim.Optimizer,
    sums: Tensor,
    ranks: Ranks = ALONE,
) -> tuple[RunProgress, list[str]]:
    """Puts the state of `path` into models, optimizer and this rank's running sums.

    Returns:
        the progress, and warnings of what has changed since it was saved: versions, the number of ranks.

    Raises:
        Refused: the file is not a whole training state of this model and optimizer.
    """
    path = existing(path) or path
    metadata = metadata_of(path, FORMAT, "state")
    progress = _parse_progress(metadata.get("progress", ""), path)
    tensors = _read(path, models["model"], optimizer)
    for key, model in models.items():
        start = f"{key}."
        weights = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        compare(path, weights, model.state_dict())
        model.load_state_dict(weights)
    _load_optimizer(path, optimizer, tensors)
    if progress.epoch + progress.step > 0:
        _check_optimizer(path, optimizer)
    saved = _load_sums(path, tensors.get("totals"), metadata.get("ranks", "1"), sums, ranks)
    warnings = _changed_versions(saved_versions(metadata))
    if saved != ranks.world:
        change = f"the run was saved with {saved} {_ranks(saved)} and goes on with {ranks.world}"
        warnings.append(f"{change}: the same batches, but not the same bits")
    return progress, warnings


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _read(path: Path, model: Classifier, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of a file or a set; of what lies apart, and of what the optimizer keeps for it, this rank's rows."""
    if not path.name.endswith(INDEX):
        return read_tensors(path)
    opened = TensorSet(path, FORMAT, "state")
    apart = [model.get_parameter(name) for name in model.apart]
    places = [index for index, one in enumerate(_parameters(optimizer)) if any(one is other for other in apart)]
    names = {f"{key}.{name}" for key in ("model", "average") for name in model.apart} & opened.tensors.keys()
    for place in places:
        start = f"optimizer.{place}."
        names |= {name for name, stored in opened.tensors.items() if name.startswith(start) and stored.shape}
    return read_here(opened, model, names)


def _ranks(count: int) -> str:
    return "rank" if count == 1 else "ranks"


def _load_sums(path: Path, found: Tensor | None, saved: str, sums: Tensor, ranks: Ranks) -> int:
    """Puts the running sums where they belong and returns the number of ranks that they come from.

    The same number of ranks get their own ones back, to the bit; of another number the first takes them all.
    """
    count = int(saved) if saved.isdecimal() and len(saved) < 10 else 0
    if found is None or count < 1 or found.numel() != count * len(sums) or found.shape[-1:] != sums.shape:
        raise Refused(str(path), "lacks its running sums", "start the run again")
    rows = found.view(count, len(sums))
    if count == ranks.world:
        sums.copy_(rows[ranks.rank])
    else:
        sums.copy_(rows.sum(dim=0)) if ranks.first else sums.zero_()
    return count


def _load_optimizer(path: Path, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for name, value in tensors.items():
        if not name.startswith("optimizer."):
            continue
        _, index, key = name.split(".", 2)
        if not index.isdigit() or int(index) >= len(parameters):
            raise Refused(str(path), f"{name} belongs to no parameter", "start the run again")
        parameter = parameters[int(index)]
        if value.dim() == 0:  # a step count; fused optimizers keep it beside the parameter
            optimizer.state[parameter][key] = value.to(parameter.device)
        elif not torch.isfinite(value).all():
            raise Refused(str(path), f"{name} holds values that are not finite", "start the run again")
        elif value.shape == parameter.shape:  # empty_like keeps the parameter's memory layout, and so the order of sums
            optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value)
        else:
            raise Refused(
                str(path), f"{name} is {tuple(value.shape)}, not {tuple(parameter.shape)}", "start the run again"
            )


def _check_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """A run under way has a state for every parameter (but plain SGD, which keeps none): nothing starts again from zero."""
    keeps = {"exp_avg", "exp_avg_sq", "step"} if "betas" in optimizer.defaults else {"momentum_buffer"}
    if optimizer.defaults.get("momentum") == 0:
        keeps = set()
    for index, parameter in enumerate(_parameters(optimizer)):
        missing = keeps - optimizer.state[parameter].keys()
        if missing:
            raise Refused(str(path), f"lacks optimizer.{index}.{min(missing)}", "start the run again")


def _parse_progress(text: str, path: Path) -> RunProgress:
    try:
        progress = RunProgress(**json.loads(text))
        good = all(type(value) is int and 0 <= value < LARGEST for value in (progress.epoch, progress.step))
        good &= is_number(progress.seconds) and (progress.best is None or is_number(progress.best))
        good &= [record["epoch"] for record in progress.history] == list(range(1, len(progress.history) + 1))
        good &= len(progress.history) == progress.epoch
        good &= all(is_number(record["seconds"]) for record in progress.history)
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise Refused(str(path), "does not say where the run stands", "start the run again")
    return progress


def _changed_versions(saved: Mapping[str, Any]) -> list[str]:
    now = current_versions()
    return [
        f"{name} was {saved.get(name, 'unknown')} when the run was saved and is {now[name]}: the resumed run may differ in the last digits"
        for name in now
        if saved.get(name) != now[name]
    ]
