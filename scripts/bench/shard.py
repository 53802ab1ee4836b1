"""A head spread over ranks beside the operator of one process: processor seconds a step, the cases in turn, step by step.

    OMP_NUM_THREADS=1 python scripts/bench/shard.py --out docs/results/bench_shard_cpu.json [--losses arcface cosface]

One shard holds all classes. A step is forward + backward with the gradients of features and prototypes, fp32. `operator` is
that of csrc/ in one process, `kernels` the spread head by its compiled kernels, `torch` the same in pure torch, `sampled` the
kernels with a tenth of the classes drawn. Ratios are of the fastest steps and of the medians; other work on the machine
disturbs them less than seconds that are taken one case after the other (scripts/bench/scale.py).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from head_timing import processor

from cifarnet.core.errors import CifarnetError
from cifarnet.core.freed_memory import keep_freed_memory
from cifarnet.losses.heads import MarginHead
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead

CASES = ("operator", "kernels", "torch", "sampled")


def build(case: str, loss: str, features: int, classes: int) -> nn.Module:
    """The head of a case; all cases have the same prototypes."""
    torch.manual_seed(0)
    if case == "operator":
        return MarginHead(features, classes, loss, backend="cpu").train()
    backend = "torch" if case == "torch" else "cpu"
    options = ClassParallelOptions(sample=0.1 if case == "sampled" else 1.0)
    return ShardedMarginHead(features, classes, loss, backend=backend, class_parallel=options).train()


def step_of(head: nn.Module, samples: int, size: int, classes: int) -> Callable[[], None]:
    """A training step of the head with its gradients."""
    torch.manual_seed(1)
    features = torch.randn(samples, size).mul(10).requires_grad_()
    labels = torch.randint(classes, (samples,))
    learned = [features, *head.parameters()]

    def step() -> None:
        torch.autograd.grad(head(features, labels), learned)

    return step


def measure(loss: str, shape: tuple[int, int, int], cases: list[str], seconds: float) -> list[dict[str, Any]]:
    """A row a case: median and fastest processor seconds, and both beside the operator's."""
    samples, size, classes = shape
    steps = {case: step_of(build(case, loss, size, classes), samples, size, classes) for case in cases}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {case: [] for case in cases}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["operator"]) < 5:
        for case, step in steps.items():
            start = time.process_time()
            step()
            times[case].append(time.process_time() - start)
    found = []
    for case, taken in times.items():
        row = {"loss": loss, "N": samples, "D": size, "C": classes, "case": case, "rounds": len(taken)}
        row |= {"median_s": statistics.median(taken), "fastest_s": min(taken)}
        row["ratio"] = row["median_s"] / statistics.median(times["operator"])
        row["fastest_ratio"] = row["fastest_s"] / min(times["operator"])
        found.append(row)
    return found


def main() -> None:
    """Prints a line a loss, size and case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=["arcface"])
    parser.add_argument("--classes", type=int, nargs="+", default=[100_000, 1_000_000], help="C")
    parser.add_argument("--samples", type=int, default=256, help="N")
    parser.add_argument("--features", type=int, default=128, help="D")
    parser.add_argument("--cases", nargs="+", choices=CASES[1:], default=CASES[1:], help="beside the operator")
    parser.add_argument("--seconds", type=float, default=60, help="a loss and size, and at least five rounds")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    keep_freed_memory()  # as training does; else a step's page faults are the allocator's luck
    result = {"machine": processor(), "instructions": torch.backends.cpu.get_cpu_capability()}
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    rows: list[dict[str, Any]] = []
    print(f"{' '.join(map(str, result.values()))}\n")
    print(
        "| C | loss | case | median, s | of the operator's | fastest, s | of the operator's |\n|---|---|---|---|---|---|---|"
    )
    for classes in options.classes:
        for loss in options.losses:
            shape = (options.samples, options.features, classes)
            for row in measure(loss, shape, ["operator", *options.cases], options.seconds):
                rows.append(row)
                cells = (f"{classes:,}", loss, row["case"], f"{row['median_s']:.3f}", f"{row['ratio']:.2f}")
                print(f"| {' | '.join(cells)} | {row['fastest_s']:.3f} | {row['fastest_ratio']:.2f} |", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
