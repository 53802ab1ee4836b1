"""Ranks as gloo processes on this machine."""

import datetime

import forked  # noqa: F401 (what the ranks are forked from has imported everything)
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from cifarnet.core.distributed import Ranks


def launch(work, ranks, *arguments):
    """Runs work(rank, ranks, ...) in gloo processes; an assertion that fails in one fails here, with its traceback."""
    mp.start_processes(_enter, (work, ranks, *arguments), nprocs=ranks, start_method="forkserver")


def _enter(rank, work, ranks, folder, *arguments):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting-{work.__name__}-{ranks}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    work(Ranks(rank, ranks), folder, *arguments)
    dist.barrier()
    dist.destroy_process_group()
