"""How the margin head grows with the number of classes: seconds a step and memory, C = 10^3 to 10^6 (10^7 on a GPU).

    OMP_NUM_THREADS=1 python scripts/bench/scale.py --out docs/results/bench_scale_cpu.json
    python scripts/bench/scale.py --device cuda --samples 1024 --features 512

A step is forward + backward of ArcFace with gradients of features and prototypes, fp32. Every case runs in processes of its
own: `compiled` is the operator of csrc/, `sharded` the head spread over 1 or 2 ranks (gloo, or NCCL with a GPU each), `sampled`
the same with a tenth of the classes drawn, `eager` plain PyTorch, until N x C numbers no longer fit. `step MB` is the peak
above the inputs, prototypes among them; `training MB` that of a whole training step with AdamW above a process without
tensors: W, dW and the two moments are 4 times W. Both are of the rank that needs most. Processor seconds are a rank's own,
which other work on the machine disturbs less than the clock's.
"""

import argparse
import ctypes
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: see cifarnet.core.distributed.connect
import torch.multiprocessing as mp
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.losses.heads import MarginHead
from cifarnet.losses.sharded.head import ClassParallelOptions, ShardedMarginHead
from scripts.bench.head_timing import peak, processor, wait

CASES = (("compiled", 1), ("sharded", 1), ("sharded", 2), ("sampled", 1), ("eager", 1))
EAGER_TENSORS = 7  # of N x C numbers, a little more than eager holds: left out where these do not fit in half of memory


def build(name: str, features: int, classes: int, device: str, ranks: Ranks = ALONE) -> nn.Module:
    """The head of a case, its prototypes drawn on the device."""
    with torch.device("meta"):
        if name in ("compiled", "eager"):
            head: nn.Module = MarginHead(features, classes, backend="torch" if name == "eager" else device)
        else:
            head = ShardedMarginHead(
                features, classes, class_parallel=ClassParallelOptions(ranks, 0.1 if name == "sampled" else 1.0)
            )
    head = head.to_empty(device=device)
    with torch.no_grad():
        head.weight.normal_(std=features**-0.5)  # type: ignore[operator]
        head.state.zero_()  # type: ignore[operator]
    return head


def run_case(
    rank: int, meeting: str, name: str, ranks: int, shape: tuple[int, int, int], device: str, seconds: float
) -> None:
    """One rank of a case; writes its numbers beside `meeting`."""
    torch.set_num_threads(max(torch.get_num_threads() // ranks, 1))
    if device == "cuda":
        torch.cuda.set_device(rank)
    if ranks > 1:
        kind = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(kind, init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    samples, size, classes = shape
    torch.manual_seed(rank)
    features = torch.randn(samples // ranks, size, device=device)
    labels = torch.randint(classes, (samples // ranks,), device=device)
    warm_up(device, size)

    head: nn.Module = nn.Identity()

    def step() -> None:
        features.grad = head.weight.grad = None
        head(features, labels).backward()

    def train() -> None:
        nonlocal head
        head = build(name, size, classes, device, Ranks(rank, ranks))
        optimizer = torch.optim.AdamW(head.parameters(), fused=True)
        step()
        optimizer.step()

    features.requires_grad_()
    found = {"training_mb": peak(train, device)}
    head.weight.grad = None
    give_back(device)
    found["step_mb"] = peak(step, device)
    times: list[float] = []
    processor: list[float] = []
    rounds = 3
    while len(times) < rounds:
        wait(device)
        start, used = time.perf_counter(), time.process_time()
        step()
        wait(device)
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        if len(times) == 1:  # as many as fit, the same number on each rank
            count = torch.tensor(min(max(seconds / times[0], 3), 200))
            if ranks > 1:
                dist.all_reduce(count, dist.ReduceOp.MIN)
            rounds = int(count)
    found |= {"median_s": statistics.median(times), "fastest_s": min(times), "rounds": rounds}
    found["processor_s"] = min(processor)
    Path(f"{meeting}.{rank}").write_text(json.dumps(found))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def warm_up(device: str, size: int) -> None:
    """What libraries take once, so that it is not counted."""
    for name in ("eager", "sharded"):
        head = build(name, size, 1000, device)
        z = torch.randn(64, size, device=device, requires_grad=True)
        head(z, torch.zeros(64, dtype=torch.int64, device=device)).backward()
    give_back(device)


def give_back(device: str) -> None:
    """Returns freed memory to the system, so that the next peak is the step's own."""
    if device == "cuda":
        torch.cuda.empty_cache()
    else:
        ctypes.CDLL(None).malloc_trim(0)


def bench(name: str, ranks: int, shape: tuple[int, int, int], device: str, seconds: float) -> dict[str, Any]:
    """A row of the table: the slowest rank's time and the hungriest one's memory."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        mp.spawn(run_case, (meeting, name, ranks, shape, device, seconds), nprocs=ranks)
        parts = [json.loads(Path(f"{meeting}.{rank}").read_text()) for rank in range(ranks)]
    row: dict[str, Any] = {"name": name, "ranks": ranks, "N": shape[0], "D": shape[1], "C": shape[2]}
    return row | {key: max(part[key] for part in parts) for key in parts[0]}


def fits(name: str, shape: tuple[int, int, int], device: str) -> bool:
    """Whether a case is worth starting."""
    if name != "eager":
        return True
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return EAGER_TENSORS * 4 * shape[0] * shape[2] < free / 2


def slope(points: list[tuple[float, float]]) -> float | None:
    """Of the line through (x, y) by least squares."""
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def weight_mb(row: dict[str, Any]) -> float:
    """The size of a rank's part of W."""
    return row["C"] / row["ranks"] * row["D"] * 4 / 1e6


def fit(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """How a case grows from 10^4 classes on: the exponent of C in its time, and its memory's growth in sizes of W."""
    large = [row for row in rows if row["C"] >= 10_000]
    return {
        "seconds": slope([(math.log(row["C"]), math.log(row["fastest_s"])) for row in large]),
        "processor": slope([(math.log(row["C"]), math.log(row["processor_s"])) for row in large]),
        "step_memory": slope([(weight_mb(row), row["step_mb"]) for row in large]),
        "training_memory": slope([(weight_mb(row), row["training_mb"]) for row in large]),
    }


def table(rows: list[dict[str, Any]], fitted: list[dict[str, Any]]) -> str:
    """The rows as Markdown, and the fits below."""
    lines = ["| C | | ranks | seconds a step (fastest) | processor seconds | step MB | training MB | W of a rank, MB |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        times = f"{row['median_s']:.4f} ({row['fastest_s']:.4f})"
        memory = [f"{row[key]:.0f}" for key in ("step_mb", "training_mb")]
        cells = [
            f"{row['C']:,}",
            row["name"],
            str(row["ranks"]),
            times,
            f"{row['processor_s']:.4f}",
            *memory,
            f"{weight_mb(row):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| from 10^4 classes on | ranks | seconds grow as C^ | processor seconds as C^ | step memory, × W | training memory, × W |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for item in fitted:
        keys = ("seconds", "processor", "step_memory", "training_memory")
        numbers = [f"{item[key]:.2f}" if item[key] is not None else "–" for key in keys]
        lines.append(f"| {item['name']} | {item['ranks']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--samples", type=int, default=256, help="N, over all ranks")
    parser.add_argument("--features", type=int, default=128, help="D")
    parser.add_argument("--classes", type=int, nargs="+", help="C (default: 10^3 to 10^6, on a GPU to 10^7)")
    parser.add_argument("--seconds", type=float, default=5, help="for each case, and at least three steps")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    args = parser.parse_args()
    sizes = args.classes or [10**power for power in range(3, 8 if args.device == "cuda" else 7)]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else processor()
    result: dict[str, Any] = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
    rows: list[dict[str, Any]] = []
    for classes in sizes:
        for name, ranks in CASES:
            shape = (args.samples, args.features, classes)
            enough = args.device == "cpu" or torch.cuda.device_count() >= ranks
            if enough and fits(name, shape, args.device):
                rows.append(bench(name, ranks, shape, args.device, args.seconds))
                print(f"measured {name}, {ranks} ranks, {classes:,} classes", file=sys.stderr)
    fitted = []
    for name, ranks in CASES:
        mine = [row for row in rows if (row["name"], row["ranks"]) == (name, ranks)]
        fitted.append({"name": name, "ranks": ranks, **fit(mine)})
    result |= {"loss": "arcface", "rows": rows, "fit": fitted}
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{machine}, {result['threads']} threads in all, torch {torch.__version__}\n\n{table(rows, fitted)}")


if __name__ == "__main__":
    main()
