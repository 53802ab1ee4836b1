"""The program in processes that are forked from one that has imported everything: Python and torch take seconds to start."""

import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cifarnet.cli import run

PRELOADED = ["cifarnet.cli.watcher", "cifarnet.engine.fit", "sklearn.datasets", "torch._dynamo", "torch.distributed.nn"]
PRELOADED += ["torch.distributed.launcher.api", "torch.distributed.elastic.multiprocessing"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


def start(*arguments: object, errors: Path | None = None, ignored: int | None = None) -> BaseProcess:
    """Begins `cifarnet ARGUMENTS` in the current folder and returns its process, whose `exitcode` is minus the signal that killed it.

    errors: the file that its stderr goes to; ignored: a signal that it ignores from its first moment. Where a test fails before
    its end, it is stopped with the tests.
    """
    return _begin(_work, program, arguments, errors, ignored, {**os.environ})


def start_ranks(ranks: int, work: Callable, *arguments: object, errors: Path, restarts: int = 0) -> BaseProcess:
    """As `start`, `work(*arguments)` in so many ranks under torchrun's agent, whose process is returned: what `torchrun` does,
    but for how a process begins. A rank's own number is found with `rank_number`."""
    return _begin(_work, _launch, (ranks, restarts, work, arguments, errors), errors, None, {**os.environ})


def rank_number(errors: Path, rank: int) -> int:
    """The process of a rank of the launch whose messages go to `errors`."""
    return int(_number_file(errors, rank).read_text())


def program(*arguments: object) -> None:
    """The program's own end."""
    sys.exit(run([str(argument) for argument in arguments]))


def _begin(target: Callable, *arguments: object) -> BaseProcess:
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _work(
    work: Callable, arguments: tuple, errors: Path | None, ignored: int | None, environment: dict[str, str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    # As a terminal starts it: the tests may run under nohup.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number == ignored else usual)
    for stream, path in ((1, os.devnull), (2, errors or os.devnull)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    work(*arguments)


def _launch(ranks: int, restarts: int, work: Callable, arguments: tuple, errors: Path) -> None:
    """torchrun --standalone --nproc-per-node RANKS --max-restarts RESTARTS."""
    multiprocessing.current_process().daemon = False  # which may have no children
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=ranks, max_restarts=restarts, run_id=str(uuid.uuid4()),
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork",
    )  # fmt: skip
    try:
        elastic_launch(config, _rank)(work, arguments, errors, {**os.environ})
    except (ChildFailedError, SignalException):
        sys.exit(1)


def _rank(work: Callable, arguments: tuple, errors: Path, environment: dict[str, str]) -> None:
    _number_file(errors, int(os.environ["RANK"])).write_text(str(os.getpid()))
    _work(work, arguments, errors, None, environment | os.environ)


def _number_file(errors: Path, rank: int) -> Path:
    return errors.with_name(f"{errors.name}.rank-{rank}")
