"""Torch's settings that hold for the whole process: ours within a block, the caller's again after it."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch

from cifarnet.core.errors import Failed, Refused
from cifarnet.core.process_wide import ProcessWide


def check_default_dtype() -> None:
    """Raises Refused where torch makes tensors of another type than float32 by default: the weights would be of it."""
    if (found := torch.get_default_dtype()) != torch.float32:
        name = str(found).removeprefix("torch.")
        fix = "call torch.set_default_dtype(torch.float32)"
        raise Refused("torch's default dtype", f"is {name}, and models are float32", fix)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which the backbone runs: bf16 autocast, or for fp32 none, in a caller's autocast too.

    Without a cache of casted weights: it is emptied when the outermost autocast ends, and a caller's would keep old ones.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return torch.autocast(device.type, enabled=False)


@contextmanager
def own_modes() -> Iterator[None]:
    """Within it, and in a function that it decorates, a caller's torch.autocast and default device have no effect."""
    with ExitStack() as held:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                held.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        if torch.get_default_device().type != "cpu":
            held.enter_context(torch.device("cpu"))
        yield


@contextmanager
def own_draws(seed: int | None = None) -> Iterator[None]:
    """Within it torch's generator of the CPU is ours, from `seed` where one is given; then it is the caller's again.

    One thread at a time: it is one generator for all. Those of GPUs are left alone (torch.manual_seed seeds them too).
    """
    with _DRAWING, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    convolutions = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = convolutions


_DETERMINISTIC = ProcessWide(_deterministic)
_DRAWING = threading.RLock()


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Within it, if `wanted`, torch computes the same bits each time, on one machine with one number of threads.

    cuBLAS gets the workspace that it needs for that, unless CUBLAS_WORKSPACE_CONFIG is set already; it reads it once, at
    its first use in the process.

    Raises:
        Failed: an operator has no such algorithm on its device.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with _DETERMINISTIC:
            yield
    except RuntimeError as error:
        name, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise Failed("deterministic", f"{name} has no deterministic form on this device", "leave it out") from error


@contextmanager
def measured_convolutions(device: torch.device, wanted: bool) -> Iterator[None]:
    """Within it, if `wanted` and on CUDA, cuDNN times its algorithms for each convolution and keeps the fastest for that shape.

    Timing a shape costs as much as many steps, so that it is for shapes that come again and again. Which algorithm is the
    fastest may differ from one process to the next, and with it the last bits.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = before
