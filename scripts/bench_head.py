"""Times the margin head, forward and backward, against what else there is, and says how exact each is.

    python scripts/bench_head.py --out docs/results/bench_head.json
    python scripts/bench_head.py --device cuda --dtype bf16 --seconds 20

The runs of all competitors are interleaved and their medians compared; `error` is the norm-wise relative error of both
gradients against float64 with the same inputs. `memory` is the peak above what was there before the step, so that it
includes the gradients. The floor is the three matrix products alone, without loss or normalisation.
"""

import argparse
import gc
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from cifarnet import kernels
from cifarnet.losses.head import MarginHead
from scripts.head_competitors import Loss, competitors, floor, reference

SHAPES = {
    "cpu": [(128, 512, 10), (512, 512, 10), (512, 512, 1000), (512, 512, 100_000)],
    "cuda": [(512, 512, 10), (512, 512, 1000), (1024, 512, 100_000), (1024, 512, 1_000_000), (1024, 512, 10_000_000)],
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Case:
    """A batch on the device, with its float64 gradients where they fit in memory."""

    features: Tensor
    weight: Tensor
    labels: Tensor
    truth: tuple[Tensor, ...] | None

    @classmethod
    def make(cls, n: int, d: int, c: int, device: str, dtype: torch.dtype) -> "Case":
        torch.manual_seed(0)
        weight = torch.randn(c, d, device=device) / math.sqrt(d)
        labels = torch.randint(c, (n,), device=device)
        features = (torch.randn(n, d, device=device) + 10 * weight[labels]).to(dtype)
        case = cls(features.requires_grad_(), weight.requires_grad_(), labels, None)
        if n * c <= 1_000_000:
            case.truth = case.gradients(textbook_double)
        return case

    def gradients(self, loss: Loss) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(self.features, self.weight, self.labels), (self.features, self.weight))

    def error(self, loss: Loss) -> float | None:
        if self.truth is None:
            return None
        pairs = zip(self.gradients(loss), self.truth, strict=True)
        return max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in pairs)


def textbook_double(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return reference(z.double(), w.double(), y)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


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

    def status(name: str) -> int:
        return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1e3


def measure(runs: dict[str, Callable[[], object]], device: str, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each run, interleaved, for about `seconds` and at least three rounds."""
    for run in runs.values():
        for _ in range(3 if seconds > 5 else 2):
            run()
    wait(device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["cifarnet"]) < 3:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            wait(device)
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def bench(n: int, d: int, c: int, device: str, dtype: str, seconds: float) -> list[dict]:
    case = Case.make(n, d, c, device, DTYPES[dtype])
    losses = competitors(device, c)
    runs: dict[str, Callable[[], object]] = {name: lambda f=f: case.gradients(f) for name, f in losses.items()}
    memory = {name: peak(run, device) for name, run in runs.items()}
    if c <= 1_000_000:
        runs["floor (3 products)"] = lambda: floor(case.features.detach(), case.weight.detach(), case.labels)
    times = measure(runs, device, seconds)
    rows = []
    for name, values in times.items():
        row = {"N": n, "D": d, "C": c, "dtype": dtype, "name": name, "rounds": len(values)}
        row |= {"median_ms": statistics.median(values), "fastest_ms": min(values)}
        row |= {"error": case.error(losses[name]) if name in losses else None, "memory_mb": memory.get(name)}
        rows.append(row)
    return rows


def share_of_step(device: str, seconds: float) -> dict:
    """The head's part of a training step: ResNet-18 on 32 x 32 images, batch 128, AdaFace."""
    from cifarnet.models import build_backbone

    torch.manual_seed(0)
    backbone = build_backbone("resnet18").to(device)
    images, labels = torch.randn(128, 3, 32, 32, device=device), torch.randint(10, (128,), device=device)
    features = torch.randn(128, backbone.num_features, device=device, requires_grad=True)
    result = {}
    for backend in ("torch", device):
        head = MarginHead(backbone.num_features, 10, "adaface", backend=backend).to(device)
        runs = {
            "cifarnet": lambda h=head: h(backbone(images), labels).backward(),
            "head": lambda h=head: h(features, labels).backward(),
        }
        medians = {name: statistics.median(values) for name, values in measure(runs, device, seconds).items()}
        result[backend] = {"step_ms": medians["cifarnet"], "head_ms": medians["head"]}
    return result


def table(rows: list[dict]) -> str:
    lines = ["| N, D, C | | median ms | fastest ms | error | memory MB |", "|---|---|---|---|---|---|"]
    for row in rows:
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
        shape = f"{row['N']}, {row['D']}, {row['C']:,}".replace(",000,000", "M")
        cells = (shape, row["name"], f"{row['median_ms']:.3f}", f"{row['fastest_ms']:.3f}", error, memory)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32", choices=DTYPES, help="of the features; the weight is fp32")
    parser.add_argument("--seconds", type=float, default=20, help="for each shape")
    parser.add_argument("--most-classes", type=int, default=10**9)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    args = parser.parse_args()
    kernels.resolve(args.device, args.device)
    machine = torch.cuda.get_device_name() if args.device == "cuda" else processor()
    result: dict = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= {"build": kernels.build_info(), "loss": "arcface", "rows": []}
    for n, d, c in SHAPES[args.device]:
        if c <= args.most_classes:
            result["rows"] += bench(n, d, c, args.device, args.dtype, args.seconds)
            print(f"measured {n}, {d}, {c}", file=sys.stderr)
            if args.out:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(result, indent=1) + "\n")
    result["share_of_step"] = share_of_step(args.device, args.seconds / 2)
    print(
        f"{machine}, {result['threads']} threads, torch {torch.__version__}, {args.dtype}\n\n{table(result['rows'])}\n"
    )
    for backend, times in result["share_of_step"].items():
        share = times["head_ms"] / times["step_ms"]
        print(f"backend {backend}: the head is {times['head_ms']:.2f} of {times['step_ms']:.1f} ms a step, {share:.2%}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
