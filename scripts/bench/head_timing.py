"""Takes the time and the memory of a margin head's step: what the benchmarks share."""

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

SCALE, MARGIN = 64.0, 0.5  # ArcFace's constants in every head that is timed
Gradients = tuple[Tensor, ...]
TOGETHER = 2.0  # milliseconds of work that is queued between two CUDA events, so that the host's latency is hidden


@dataclass
class Run:
    """A forward and backward pass to be timed, and how: `tf32` lets fp32 products round to TF32."""

    call: Callable[[], Gradients | None]
    tf32: bool = False
    repeats: int = 1
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)

    def ready(self) -> None:
        """Sets what holds for the whole process; outside the time that is taken."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32

    def row(self) -> dict[str, float]:
        """Medians: on CUDA the time between events, with the wall's beside it; on the CPU the wall's."""
        times = self.device_ms or self.host_ms
        row = {"rounds": len(times), "median_ms": statistics.median(times), "fastest_ms": min(times)}
        return row | ({"host_ms": statistics.median(self.host_ms)} if self.device_ms else {})


def wait(device: str) -> None:
    """Until the device has done what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def warm_up(run: Run, device: str, rounds: int) -> None:
    """Compiles, chooses algorithms, fills the allocator; then finds out how many runs go between two events."""
    run.ready()
    for _ in range(rounds):
        run.call()
    if device == "cuda":
        wait(device)
        start = time.perf_counter()
        run.call()
        wait(device)
        run.repeats = max(1, min(20, int(TOGETHER / 1e3 / (time.perf_counter() - start))))


def take(run: Run, device: str) -> None:
    """One measurement."""
    run.ready()
    if device == "cpu":
        start = time.perf_counter()
        run.call()
        run.host_ms.append((time.perf_counter() - start) * 1e3)
        return
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start = time.perf_counter()
    before.record()
    for _ in range(run.repeats):
        run.call()
    after.record()
    after.synchronize()
    run.host_ms.append((time.perf_counter() - start) * 1e3 / run.repeats)
    run.device_ms.append(before.elapsed_time(after) / run.repeats)


def measure(runs: dict[str, Run], device: str, seconds: float, least: int = 3) -> None:
    """Times the runs in turn, for about `seconds` and at least three rounds."""
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < least:
        for run in runs.values():
            take(run, device)
        rounds += 1
    torch.backends.cuda.matmul.allow_tf32 = False


def captured(call: Callable[[], Gradients]) -> Callable[[], Gradients]:
    """The same work as a CUDA graph: a replay is one launch, and its results stand where the first ones stood."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            results = call()
    finally:
        torch.cuda.set_stream(here)  # a recording that breaks leaves its own

    def replay() -> Gradients:
        graph.replay()
        return results

    return replay


def peak(run: Callable[[], object], device: str) -> float:
    """The most memory, MB, that a run needs above what there was: torch's count on CUDA, the resident set on the CPU."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith(name))
        return int(kibibytes) * 1024 / 1e6

    # What was freed before goes back to the system, also where a process keeps it: reused, it would not be counted.
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def processor() -> str:
    """The CPU's name."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
