"""The program in processes that are forked from one that has imported everything: Python and torch take seconds to start."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from cifarnet.cli import run

PRELOADED = ["cifarnet.cli.watcher", "cifarnet.engine.fit", "sklearn.datasets", "torch._dynamo", "torch.distributed.nn"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)


def start(*arguments: object, errors: Path | None = None, ignored: int | None = None) -> BaseProcess:
    """Begins `cifarnet ARGUMENTS` in the current folder and returns its process, whose `exitcode` is minus the signal that killed it.

    errors: the file that its stderr goes to; ignored: a signal that it ignores from its first moment. Where a test fails before
    its end, it is stopped with the tests.
    """
    process = CONTEXT.Process(
        target=_work, args=([*map(str, arguments)], errors or os.devnull, ignored, {**os.environ}), daemon=True
    )
    process.start()
    return process


def _work(arguments: list[str], errors: Path, ignored: int | None, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    # As a terminal starts it: the tests may run under nohup.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number == ignored else usual)
    for stream, path in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
    sys.exit(run(arguments))
