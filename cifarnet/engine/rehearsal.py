"""A training that is not begun: everything is set up, a few steps are timed, and nothing is written."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import finish
from cifarnet.core.distributed import ALONE
from cifarnet.core.errors import Refused
from cifarnet.core.torch_settings import determinism, own_modes
from cifarnet.data import Dataset
from cifarnet.data.augment.progressive import side_at
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.launch import prepare
from cifarnet.engine.step import train_step
from cifarnet.engine.step_graph import WARM_STEPS
from cifarnet.engine.train_state import TrainState
from cifarnet.engine.views import VIEW_WEIGHTS
from cifarnet.storage.open_run import open_run
from cifarnet.storage.runs import next_name

WARM_UP, STEPS, SECONDS = 2, 20, 5.0  # steps before the clock starts; then so many, or as long as this takes
GRAPH_WARM_UP = WARM_STEPS + 1  # of a recorded step


@dataclass(frozen=True)
class Rehearsal:
    """The cost of a training. seconds: of an epoch's training (the mean), and of measuring the model after it, as timed here.

    path: the run's folder; size: of checkpoint and training state together, in bytes.
    """

    run: TrainState
    path: Path
    train_seconds: float
    evaluation_seconds: float
    size: int
    warnings: list[str]

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        config = self.run.config
        evaluations = -(-config.epochs // config.eval_every)
        return config.epochs * self.train_seconds + evaluations * self.evaluation_seconds


@own_modes()
@torch.inference_mode(False)
def rehearse(
    config: TrainConfig,
    load: Callable[[], Dataset],
    out: Path | None = None,
    *,
    overwrite: bool = False,
    init_from: Path | None = None,
    trial: bool = False,
) -> Rehearsal:
    """Sets a training up as `fit` does, on this machine, and times a few of its steps; no file is made.

    Raises:
        Refused: what `fit` would refuse, or several processes.
    """
    path = out or next_name(config)
    open_run(path, resume=False, overwrite=overwrite)
    run, warnings = prepare(config, ALONE, load, init_from=init_from)
    run.trial = trial
    run.model.train()
    with determinism(config.deterministic), run.freed_memory_kept():
        step = mean_step(run)
        evaluation = timed_evaluation(run)
    tensors = [*run.model.state_dict().values()]
    kept = [value for state in run.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    # Of the model: in the state, where its average may be too, in last.safetensors, and in best.safetensors.
    models = 2 + (run.average is not None) + bool(config.val_fraction)
    size = sum(one.nbytes for one in tensors) * models + sum(one.nbytes for one in kept)
    return Rehearsal(run, path, run.steps * step, evaluation, size, warnings)


def mean_step(run: TrainState) -> float:
    """Seconds of a training step, the mean over all epochs. Where images grow (`progressive`) the least and the largest are
    timed, and those between cost in proportion to their area. Raises Refused where an epoch has no step.
    """
    config = run.config
    sides = [side_at(epoch, config.epochs, config.progressive, config.image_size) for epoch in range(config.epochs)]
    first = timed_step(run, 0)
    if sides[0] == sides[-1]:
        return first
    grown = [(side**2 - sides[0] ** 2) / (sides[-1] ** 2 - sides[0] ** 2) for side in sides]
    return first + sum(grown) / len(grown) * (timed_step(run, len(sides) - 1) - first)


def timed_step(run: TrainState, epoch: int) -> float:
    """Seconds of a training step in `epoch` (from 0), the mean of a few. Raises Refused where an epoch has no step."""
    times: list[float] = []
    run.progress.epoch = epoch
    batches, warm_up = run.train.epoch(0), GRAPH_WARM_UP if run.graph else WARM_UP
    started = time.perf_counter()
    for number, (images, labels) in enumerate(batches):
        train_step(run, images, labels)
        run.progress.step = 0  # each is the first: the schedule is not what is timed
        finish(run.device)
        now = time.perf_counter()
        if number >= min(warm_up, run.steps - 1):
            times.append(now - started)
        started = now
        if len(times) >= STEPS or sum(times) > SECONDS:
            break
    run.progress.epoch = 0
    if not times:
        raise Refused("dataset", "has too few images for a step", "try a smaller `batch_size`")
    return sum(times) / len(times)


def timed_evaluation(run: TrainState) -> float:
    """Seconds that measuring the model takes after an epoch, on the test images and those held out; of a trial on these alone."""
    loaders = [loader for loader in (None if run.trial else run.test, run.validation) if loader is not None]
    samples = sum(len(loader.split) for loader in loaders) * (len(VIEW_WEIGHTS) if run.config.tta else 1)
    done, started = 0, time.perf_counter()
    for features, _ in embed_batches(run.result, loaders[0].epoch(0), run.device, run.precision):
        done += len(features)
        finish(run.device)
        if time.perf_counter() - started > SECONDS / 2:
            break
    return (time.perf_counter() - started) / max(done, 1) * samples
