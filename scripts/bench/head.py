"""Times the margin head, forward and backward, against what else there is, and says how exact each is.

    python scripts/bench/head.py --out docs/results/bench_head.json
    python scripts/bench/head.py --device cuda --dtype bf16 --seconds 20
    python scripts/bench/head.py --device cuda --dtype bf16 --only ours floor --seconds 2

The runs of all competitors are interleaved and their medians compared, the largest number of classes first; on CUDA the time
is that between events, the wall's stands beside it. `error` is the norm-wise relative error of both gradients against float64
with the same inputs. `memory` is the peak above what was there before the step, so that it includes the gradients. The floor is
the three matrix products alone, without loss or normalisation. With bf16 features on CUDA, pure torch runs under autocast and,
in a second column, with fp32 products that may round to TF32; with fp32 features, without and with TF32.
"""

import argparse
import gc
import json
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.freed_memory import keep_freed_memory
from cifarnet.losses import kernels
from cifarnet.losses.heads import MarginHead
from scripts.bench.head_competitors import GROUPS, Competitor, competitors, floor, reference
from scripts.bench.head_timing import Gradients, Run, captured, measure, peak, processor, warm_up

SHAPES = {
    "cpu": [(512, 512, 100_000), (512, 512, 1000), (512, 512, 10), (128, 512, 10)],
    "cuda": [(1024, 512, 10_000_000), (1024, 512, 1_000_000), (1024, 512, 100_000), (512, 512, 1000), (512, 512, 10)],
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRUTH = {"cpu": 1 << 20, "cuda": 1 << 27}  # the most cosines of which float64 gradients are computed
TRUTH_ROWS = 1 << 25  # cosines at a time: the reference holds about ten copies of them


@dataclass
class Case:
    """A batch on the device, with its float64 gradients where there are few enough cosines."""

    features: Tensor
    weight: nn.Parameter
    labels: Tensor
    truth: Gradients | None = None

    @classmethod
    def make(cls, n: int, d: int, c: int, device: str, dtype: torch.dtype) -> "Case":
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(c, d, device=device).div_(math.sqrt(d)))
        labels = torch.randint(c, (n,), device=device)
        features = (torch.randn(n, d, device=device) + 10 * weight.detach()[labels]).to(dtype)
        case = cls(features.requires_grad_(), weight, labels)
        if n * c <= TRUTH[device]:
            case.truth = case.in_double(max(1, TRUTH_ROWS // c))
        return case

    def in_double(self, rows: int) -> Gradients:
        """The gradients by the reference in float64, so many rows of the batch at a time."""
        z, w = (x.detach().double().requires_grad_() for x in (self.features, self.weight))
        for part, labels in zip(z.split(rows), self.labels.split(rows), strict=True):
            (reference(part, w, labels) * (len(labels) / len(z))).backward()
        assert z.grad is not None and w.grad is not None
        return z.grad, w.grad

    def gradients(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Gradients:
        return torch.autograd.grad(loss(self.features, self.labels), (self.features, self.weight))

    def error(self, found: Gradients) -> float | None:
        """The worse of the two gradients' norm-wise relative errors."""
        if self.truth is None:
            return None
        pairs = zip(found, self.truth, strict=True)
        return max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)

    def run(self, competitor: Competitor) -> Run:
        def call() -> Gradients:
            return self.gradients(competitor.loss)

        return Run(captured(call) if competitor.graph else call, competitor.tf32)


def prepare(case: Case, competitor: Competitor, device: str, rounds: int) -> tuple[Run, dict[str, Any]]:
    """A competitor's run, warmed up, with its memory and its error."""
    torch.backends.cuda.matmul.allow_tf32 = competitor.tf32
    run = case.run(competitor)
    if competitor.group == "compile":
        run.call()  # compiling takes memory of its own
    facts = {"memory_mb": None if competitor.graph else peak(run.call, device)}
    warm_up(run, device, rounds)
    found = run.call()
    return run, facts | {"error": case.error(found) if found else None}


def bench(shape: tuple[int, int, int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each competitor at one shape; one that fails has the reason in its row."""
    if "compile" in options.only:
        torch.compiler.reset()  # a shape's graphs are its own: what another one compiled would count towards dynamo's limits
    device, rounds = options.device, 3 if options.seconds > 5 else 2
    case = Case.make(*shape, device, DTYPES[options.dtype])
    runs: dict[str, Run] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, competitor in competitors(case.weight, case.features.dtype, options.only, options.compiler).items():
        rows[name] = dict(zip("NDC", shape, strict=True)) | {"dtype": options.dtype, "name": name}
        try:
            runs[name], facts = prepare(case, competitor, device, rounds)
            rows[name] |= facts
        except Exception as error:
            traceback.print_exc()
            rows[name]["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    if "floor" in options.only and (device == "cuda" or shape[2] <= 1_000_000):
        name = "floor (3 products)"
        runs[name] = Run(lambda: floor(case.features.detach(), case.weight.detach()))
        warm_up(runs[name], device, rounds)
        rows[name] = dict(zip("NDC", shape, strict=True)) | {"dtype": options.dtype, "name": name}
        rows[name] |= {"memory_mb": None, "error": None}
    measure(runs, device, options.seconds)
    for name, run in runs.items():
        rows[name] |= run.row()
    return list(rows.values())


def share_of_step(device: str, seconds: float) -> dict[str, dict[str, float]]:
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
            "step_ms": Run(lambda h=head: h(backbone(images), labels).backward()),
            "head_ms": Run(lambda h=head: h(features, labels).backward()),
        }
        for run in runs.values():
            warm_up(run, device, 2)
        measure(runs, device, seconds)
        result[backend] = {name: run.row()["median_ms"] for name, run in runs.items()}
    return result


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| N, D, C | | median ms | fastest ms | error | memory MB |", "|---|---|---|---|---|---|"]
    for row in rows:
        shape = f"{row['N']}, {row['D']}, {row['C']:,}".replace(",000,000", "M")
        cells = [shape, row["name"]]
        if "failed" in row:
            cells += [row["failed"], "", "", ""]
        else:
            cells += [f"{row['median_ms']:.3f}", f"{row['fastest_ms']:.3f}"]
            cells += ["" if row["error"] is None else f"{row['error']:.0e}"]
            cells += ["" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shape_of(text: str) -> tuple[int, int, int]:
    n, d, c = (int(part) for part in text.split(","))
    return n, d, c


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32", choices=DTYPES, help="of the features; the weight is fp32")
    parser.add_argument("--seconds", type=float, default=20, help="for each shape")
    parser.add_argument("--shapes", nargs="+", type=shape_of, metavar="N,D,C", help="instead of the device's own")
    parser.add_argument("--most-classes", type=int, default=10**9)
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="and no training step")
    parser.add_argument("--compiler", default="inductor", help="torch.compile's backend (aot_eager is soon ready)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    options.whole = options.only is None
    options.only = options.only or GROUPS
    return options


def main() -> None:
    """Measures shape by shape, keeping what there is; exits with 1 where cifarnet's own head failed."""
    options = parse_options()
    kernels.resolve(options.device, options.device)
    # As training does; else a step's page faults are the allocator's luck.
    if options.device == "cpu":
        keep_freed_memory()
    machine = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    result: dict[str, Any] = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= {"build": kernels.build_info(), "loss": "arcface", "rows": []}

    def keep() -> None:
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")

    for shape in options.shapes or SHAPES[options.device]:
        if shape[2] <= options.most_classes:
            result["rows"] += bench(shape, options)
            print("measured {}, {}, {}".format(*shape), file=sys.stderr, flush=True)
            keep()
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
    print(f"{machine}, {result['threads']} threads, torch {torch.__version__}, {options.dtype}\n")
    print(table(result["rows"]), "\n")
    if options.whole:
        result["share_of_step"] = share_of_step(options.device, options.seconds / 2)
        for backend, times in result["share_of_step"].items():
            head, step = times["head_ms"], times["step_ms"]
            print(f"backend {backend}: the head is {head:.2f} of {step:.1f} ms a step, {head / step:.2%}")
    keep()
    sys.exit(any("failed" in row and row["name"].startswith("cifarnet") for row in result["rows"]))


if __name__ == "__main__":
    main()
