"""Several ranks under torchrun (gloo, CPU): the numbers of one process, and the faults of many."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import ranks_worker
import torch
from ranks_worker import CASES, run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.signals import StopRequest
from cifarnet.models.checkpoint import load_model
from cifarnet.storage.run_files import read_metrics
from cifarnet.storage.run_folder import RunFolder

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# Small steps: training amplifies rounding (a ReLU that flips), and Adam turns the first gradient of a unit into a whole step.
TRAIN = (
    "train --dataset digits --arch baseline --loss adaface --epochs 3 --batch-size 128 --augment basic "
    "--optimizer sgd --lr 1e-5 --checkpoint-every 2 --precision fp32 --device cpu"
)


def torchrun(ranks: int, *program: object, restarts: int = 0) -> list[str]:
    """The command that starts `ranks` processes of a program."""
    start = f"-m torch.distributed.run --standalone --nproc-per-node {ranks} --max-restarts {restarts}"
    return [sys.executable, *start.split(), *map(str, program)]


def program(*arguments: object) -> list[object]:
    return ["-m", "cifarnet", *arguments]


def records(folder: Path) -> list[dict]:
    found, warnings = read_metrics(RunFolder(folder).metrics)
    assert not warnings
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in found]


def same_files(a: Path, b: Path) -> bool:
    one, two = load_file(a), load_file(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """What three ranks left behind: see ranks_worker.py."""
    out = tmp_path_factory.mktemp("three")
    errors = out / "messages"
    process = forked.start_ranks(3, ranks_worker.main, out, errors=errors)
    process.join(300)
    assert process.exitcode == 0, errors.read_text()[-3000:]
    return out


@pytest.mark.parametrize("case", CASES)
def test_three_ranks_are_one(three, tmp_path, case):
    """Uneven parts of each batch (34, 33, 33 and 10, 10, 10): the global losses, the weights and the head's state of one process."""
    run(CASES[case], tmp_path / case, ALONE)
    alone, together = records(tmp_path / case), records(three / case)
    assert len(alone) == len(together) == CASES[case].epochs
    for one, many in zip(alone, together, strict=True):
        assert one.keys() == many.keys()
        for name in one:
            assert many[name] == pytest.approx(one[name], rel=1e-5, abs=1e-6), name
    mine, theirs = (load_file(folder / case / "last.safetensors") for folder in (tmp_path, three))
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(theirs[name], mine[name], rtol=1e-3, atol=2e-5, msg=name)
    scores = [json.loads((folder / case / "summary.json").read_text()) for folder in (tmp_path, three)]
    assert [score["ranks"] for score in scores] == [1, 3]
    assert scores[1]["test"]["images"] == 101 and scores[0]["test"]["confusion"] == scores[1]["test"]["confusion"]


def test_no_thread_of_gloo_is_left_at_the_end(three):
    """One that needs the interpreter while that ends aborts the process ("terminate called without an active exception")."""
    left = [(three / f"threads-{rank}").read_text() for rank in range(3)]
    assert all("python" in names and "gloo" not in names for names in left), left


def test_three_ranks_stopped_by_a_signal_to_one_resume_bit_for_bit(three):
    for where in (1, 5):
        stopped = three / f"stopped-{where}"
        assert same_files(three / "adaface" / "state.safetensors", stopped / "state.safetensors")
        assert same_files(three / "adaface" / "last.safetensors", stopped / "last.safetensors")
        assert records(three / "adaface") == records(stopped)


def test_a_run_of_three_ranks_goes_on_with_one(three, tmp_path):
    """In the middle of an epoch too: announced, and the epoch's loss is that of all its images."""
    longer = dataclasses.replace(CASES["ce"], epochs=3, schedule="constant")
    with pytest.raises(BaseException, match="stopped by SIGTERM"):
        run(longer, tmp_path / "run", ALONE, stop_at=6)
    state = tmp_path / "run" / "state.safetensors"
    metadata, tensors = read_state(state)
    # as three ranks would have left it, each with a third of the sums
    write_state(
        state, {**metadata, "ranks": "3"}, {**tensors, "totals": (tensors["totals"] / 3).expand(3, 4).contiguous()}
    )
    warnings = run(longer, tmp_path / "run", ALONE, state=state)
    assert warnings == ["the run was saved with 3 ranks and goes on with 1: the same batches, but not the same bits"]
    run(longer, tmp_path / "whole", ALONE)
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "run"), strict=True):
        assert other == pytest.approx(one, rel=1e-6)
    assert run(CASES["ce"], three / "ce", ALONE, state=three / "ce" / "state.safetensors") == warnings


def read_state(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), load_file(path)


def write_state(path: Path, metadata: dict[str, str], tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("config", r"rank 2: differs from rank 0: `lr` 0.5, not 0.01; "),
        ("data", r"rank 2: differs from rank 0: data 330 \+ 101 images, 10 classes, digest \w+, not 330 \+ 101 .*; "),
        ("missing", r"rank 2 \(.+\): digits: are not here; fetch them"),
        ("missing everywhere", r"rank 0 \(.+\): digits: are not here; fetch them"),
        ("state", r"rank 2 \(.+\): .*nowhere.*state.safetensors: there is no such file"),
        ("batch", r"batch_size: 5 leaves a batch of 5 images for 3 ranks, fewer than two for each; "),
        ("last batch", r"batch_size: 163 leaves a batch of 4 images .*; choose another, for example 162,"),
        ("sync_bn", r"sync_bn: torch has it for CUDA only, and this is cpu; leave it out"),
        ("device", r"device: 'cuda:1' is one device, and there are 3 ranks; use auto, cuda or cpu"),
    ],
)
def test_what_one_rank_lacks_all_refuse_before_the_first_step(three, fault, words):
    assert re.match(words, json.loads((three / "refusals.json").read_text())[fault])


def test_a_best_that_the_first_rank_cannot_read_all_refuse(three):
    """No rank waits for weights that do not come, and none says that another has ended."""
    words = json.loads((three / "refusals.json").read_text())["best"]
    assert re.match(r"/.*/gone/best\.safetensors: there is no such file", words), words


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of the real program with two ranks, never disturbed: its folder and what it printed."""
    out = tmp_path_factory.mktemp("two")
    command = torchrun(2, *program(*TRAIN.split(), "--out", out / "run", "--json"))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "run", done


def test_two_ranks_of_the_program_print_and_write_as_one(two, cli, tmp_path):
    folder, done = two
    assert cli(*TRAIN.split(), "-q", "--out", tmp_path / "one")[0] == 0
    for one, many in zip(records(tmp_path / "one"), records(folder), strict=True):
        assert many == pytest.approx(one, rel=1e-5)
    assert json.loads(done.stdout) == json.loads((folder / "summary.json").read_text())  # once
    assert "ranks    2, a batch of 128 over all of them" in done.stderr
    assert len(re.findall(r"^ +[123] +\d\.\d\de", done.stderr, re.MULTILINE)) == 3  # a line an epoch
    configs = [json.loads((each / "config.json").read_text()) for each in (folder, tmp_path / "one")]
    about = [each.pop("run") for each in configs]
    assert configs[0] == configs[1] and about[0]["data_digest"] == about[1]["data_digest"]
    assert about[1]["command"] == shlex.join(["cifarnet", *TRAIN.split(), "-q", "--out", str(tmp_path / "one")])
    mine, theirs = ({path.name for path in each.iterdir()} for each in (tmp_path / "one", folder))
    assert theirs == mine | {".job"}  # by which a restart of this launch would know its own run


class Launch:
    """A launch of two ranks under way in `folder`."""

    def __init__(self, folder: Path, *arguments: object, restarts: int = 0) -> None:
        self.folder, self.errors = folder, folder.with_name(f"{folder.name}-messages")
        self.process = forked.start_ranks(
            2, forked.program, *arguments, "--out", folder, errors=self.errors, restarts=restarts
        )

    def wait_for(self, mark: str, older: float = 0.0) -> None:
        """Until the folder's file `mark` is there, written after the time `older`."""
        deadline, path = time.monotonic() + 90, self.folder / mark
        while not (path.exists() and path.stat().st_mtime > older):
            assert self.process.is_alive() and time.monotonic() < deadline, self.errors.read_text()[-3000:]
            time.sleep(0.01)

    def signal(self, rank: int, number: int) -> None:
        """Sends a signal to one rank."""
        os.kill(forked.rank_number(self.errors, rank), number)

    def end(self, within: float = 30.0) -> tuple[int, str]:
        """Exit code and messages; it must end within so many seconds."""
        self.process.join(within)
        assert self.process.exitcode is not None, self.errors.read_text()[-3000:]
        return self.process.exitcode, self.errors.read_text()


def test_kill_9_of_a_rank_ends_all_and_torchrun_resumes(two, tmp_path):
    """Killed in the first epoch, it goes on by itself; killed again, all end; resumed by hand, not a bit is lost."""
    undisturbed, _ = two
    folder = tmp_path / "run"
    launch = Launch(folder, *TRAIN.split(), restarts=1)
    launch.wait_for("state.safetensors")
    launch.signal(1, signal.SIGKILL)
    killed = time.time()
    launch.wait_for("last.safetensors", older=killed)
    assert load_model(folder / "last.safetensors")[1].epoch == 1
    launch.signal(0, signal.SIGKILL)
    code, messages = launch.end(within=30)
    assert code != 0 and "already holds a run" not in messages
    epoch = load_model(folder / "last.safetensors")[1].epoch
    assert epoch < 3 and len(records(folder)) == epoch
    code, messages = Launch(folder, "train", "--resume").end(within=120)
    assert code == 0, messages
    assert same_files(undisturbed / "state.safetensors", folder / "state.safetensors")
    assert same_files(undisturbed / "last.safetensors", folder / "last.safetensors")
    assert records(undisturbed) == records(folder)


@pytest.mark.parametrize("receiver", ["rank 1", "torchrun"])
def test_sigterm_saves_once_and_ends_all(tmp_path, receiver):
    launch = Launch(tmp_path / "run", *TRAIN.split(), "--epochs", "500", "--checkpoint-every", "0")
    launch.wait_for("last.safetensors")
    if receiver == "torchrun":
        launch.process.terminate()
    else:
        launch.signal(1, signal.SIGTERM)
    code, messages = launch.end(within=30)
    assert code != 0
    said = re.findall(r"^stopped by SIGTERM in epoch (\d+), step (\d+); everything is saved", messages, re.MULTILINE)
    ((epoch, step),) = said  # another rank that is still there begins its line with its number
    progress = json.loads(read_state(tmp_path / "run" / "state.safetensors")[0]["progress"])
    assert (progress["epoch"] + 1, progress["step"]) == (int(epoch), int(step))


def test_a_restart_resumes_no_run_that_it_did_not_begin(two, tmp_path):
    shutil.copytree(two[0], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    code, messages = Launch(tmp_path / "run", *TRAIN.split(), restarts=1).end(within=90)
    assert code != 0 and messages.count("already holds a run; add --resume to continue it") == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_other_commands_are_refused():
    done = subprocess.run(torchrun(2, *program("eval")), env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    refusal = "error: torchrun: only train runs in several processes, not eval; start it without torchrun"
    assert done.returncode != 0 and done.stderr.count(refusal) == 1


def test_restarts_need_a_name_for_the_run(cli, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    code, _, messages = cli(*TRAIN.split())
    assert code == 2 and messages.startswith("error: --out: torchrun --max-restarts needs it")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 6, 100])
def test_parts_are_those_of_tensor_split(size, world):
    for rank, part in enumerate(torch.arange(size).tensor_split(world)):
        assert list(range(*Ranks(rank, world).part(size))) == part.tolist()


def test_a_rank_that_waits_for_one_that_is_gone_ends():
    """A mutex locked twice stands for a driver: there no Python handler runs."""
    code = """
import ctypes, os, signal, threading
from cifarnet.core import signals
signals.GRACE = 0.3
with signals.StopRequest(together=True):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=30).returncode == 143


def test_a_second_signal_means_nothing_to_ranks():
    with StopRequest(together=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_a_restart_goes_on_with_the_run_that_its_launch_began(cli, monkeypatch, tmp_path):
    quick = "train --dataset digits --arch baseline --batch-size 256 --augment none --device cpu -q --out run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one-job")
    assert cli(*quick.split(), "--epochs", 1)[0] == 0
    assert cli(*quick.split(), "--epochs", 2)[0] == 2  # it holds a run
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli(*quick.split(), "--epochs", 2)[0] == 0
    assert [record["epoch"] for record in records(tmp_path / "run")] == [1, 2]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    code, _, messages = cli(*quick.split(), "--epochs", 3)
    assert code == 2 and "already holds a run" in messages
