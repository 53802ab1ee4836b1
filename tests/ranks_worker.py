"""What the ranks of tests/core/test_distributed.py run under torchrun: many small trainings in one launch.

    torchrun --nproc-per-node N ranks_worker.py OUT

Rank 0 leaves a run folder OUT/<case> for each case, and OUT/refusals.json; each rank OUT/threads-<rank>: its threads at the end.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import Ranks, connect
from cifarnet.core.errors import CifarnetError, Interrupted, Refused
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.dataset import make_dataset
from cifarnet.engine.launch import prepare
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.validate import restore_best
from cifarnet.storage.run_folder import RunFolder

BASE = TrainConfig(
    arch="baseline", dataset="digits", epochs=2, batch_size=100, augment="basic", lr=0.01, schedule="onecycle",
    precision="fp32", device="cpu", optimizer="sgd",
)  # fmt: skip
CASES = {  # 330 images: batches of 100, 100, 100 and 30
    "ce": dataclasses.replace(BASE, lr=0.1),
    "focal": dataclasses.replace(BASE, loss="focal", optimizer="adamw", lr=1e-3),
    "adaface": dataclasses.replace(BASE, loss="adaface", backend="torch"),
    "adaface-compiled-head": dataclasses.replace(BASE, loss="adaface", loss_options={"t_alpha": 0.5}),
    "curricularface": dataclasses.replace(BASE, loss="curricularface", backend="torch"),
    "sphereface": dataclasses.replace(BASE, loss="sphereface", log_grad=True),
    "magface": dataclasses.replace(BASE, loss="magface", val_fraction=0.2, tta=True),
    "mixed": dataclasses.replace(BASE, mixup=0.4, cutmix=1.0, ema=0.9, augment="report"),
}


def few_digits():
    """330 images to train on and 101 to test with."""
    digits = load("digits")
    train, test = digits.train.subset(torch.arange(330)), digits.test.subset(torch.arange(101))
    return make_dataset("digits", digits.classes, train, test)


DATA = few_digits()


def run(config, folder, ranks, *, state=None, stop_at=None, data=DATA):
    """Trains in `folder`; `stop_at`: the last rank alone gets SIGTERM after so many steps."""
    session, warnings = prepare(config, ranks, lambda: data, state=state)

    class Signalled(Watcher):
        left = stop_at if ranks.rank == ranks.world - 1 else None

        def step(self, *_):
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    signal.raise_signal(signal.SIGTERM)

    folder.mkdir(parents=True, exist_ok=True)
    with StopRequest(together=True) as stop:
        train(session, RunFolder(folder), Signalled(), stop)
    return warnings


def refused(ranks: Ranks, config=BASE, load=lambda: DATA, state=None):
    """The words of the refusal of these ranks, as `alike`, before they train."""
    return alike(ranks, lambda: prepare(config, ranks, load, state=state))


def alike(ranks: Ranks, work):
    """The words of the refusal of `work`, which all ranks must have raised alike."""
    try:
        work()
        words = "not refused"
    except CifarnetError as error:
        words = str(error)
    everyone = ranks.gather(lambda: words)
    return everyone[0] if len(set(everyone)) == 1 else f"not alike: {everyone}"


def lost_best(ranks: Ranks, path: Path) -> None:
    """A training whose `best` is not there at its end. The session goes with this function: it holds threads of gloo."""
    session, _ = prepare(BASE, ranks, lambda: DATA)
    restore_best(session, path)


def missing():
    raise Refused("digits", "are not here", "fetch them")


def main(out: Path) -> None:
    torch.set_num_threads(1)
    for number in range(5):  # one after the other, as a program that trains several times: none meets the one before
        with connect("cpu") as ranks:
            assert ranks.gather(lambda number=number: number) == [number] * ranks.world
    with connect("cpu") as ranks:
        for name, config in CASES.items():
            run(config, out / name, ranks)
        for where in (1, 5):  # 4 steps an epoch
            broken = out / f"stopped-{where}"
            try:
                run(CASES["adaface"], broken, ranks, stop_at=where)
                raise AssertionError("the ranks did not stop")
            except Interrupted as error:
                assert error.exit_code == 143
            assert run(CASES["adaface"], broken, ranks, state=broken / "state.safetensors") == []
        last = ranks.rank == ranks.world - 1
        other = make_dataset("digits", DATA.classes, DATA.train.subset(torch.arange(330).flip(0)), DATA.test)
        refusals = {
            "best": alike(ranks, lambda: lost_best(ranks, out / "gone" / "best.safetensors")),
            "config": refused(ranks, dataclasses.replace(BASE, lr=0.5) if last else BASE),
            "data": refused(ranks, load=lambda: other if last else DATA),
            "missing": refused(ranks, load=missing if last else lambda: DATA),
            "missing everywhere": refused(ranks, load=missing),
            "state": refused(ranks, state=out / ("nowhere" if last else "ce") / "state.safetensors"),
            "batch": refused(ranks, dataclasses.replace(BASE, batch_size=2 * ranks.world - 1)),
            "last batch": refused(ranks, dataclasses.replace(BASE, batch_size=163)),  # 163, 163 and 4 of 330
            "sync_bn": refused(ranks, dataclasses.replace(BASE, sync_bn=True)),
            "device": refused(ranks, dataclasses.replace(BASE, device="cuda:1")),
        }
        if ranks.first:
            (out / "refusals.json").write_text(json.dumps(refusals))
    threads = sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
    (out / f"threads-{ranks.rank}").write_text(" ".join(threads))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
