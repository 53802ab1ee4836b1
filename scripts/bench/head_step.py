"""A few steps of the compiled margin head, for a tool that watches: each loss, forward and backward, at small shapes.

    compute-sanitizer --tool memcheck python scripts/bench/head_step.py --device cuda 33,70,10 50,40,300
    python scripts/bench/head_step.py --device cuda --profile 1024,512,100000

--profile prints torch's table of what ran, ArcFace in bf16 alone.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.losses import LOSSES
from cifarnet.losses.heads import MarginHead


def steps(shape: tuple[int, int, int], loss: str, dtype: torch.dtype, device: str, count: int = 1) -> None:
    """So many forward and backward passes; every gradient must be finite."""
    n, d, c = shape
    torch.manual_seed(0)
    head = MarginHead(d, c, loss, backend=device).to(device)
    features = torch.randn(n, d, device=device).to(dtype).requires_grad_()
    labels = torch.randint(c, (n,), device=device)
    for _ in range(count):
        head.weight.grad = features.grad = None
        head(features, labels).backward()
    if not (features.grad.isfinite().all() and head.weight.grad.isfinite().all()):
        sys.exit(f"error: {shape}, {loss}, {dtype}: a gradient is not finite")


def table(shape: tuple[int, int, int], device: str) -> str:
    """What five steps spend their time on, after three that warm up."""
    steps(shape, "arcface", torch.bfloat16, device, 3)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=kinds) as found:
        steps(shape, "arcface", torch.bfloat16, device, 5)
        if device == "cuda":
            torch.cuda.synchronize()
    by = f"self_{'device' if device == 'cuda' else 'cpu'}_time_total"
    return found.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70)


def main() -> None:
    """Runs the shapes one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", metavar="N,D,C")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    names = [name for name, loss in LOSSES.items() if loss.angular and options.device in loss.kernels]
    for text in options.shapes:
        n, d, c = (int(part) for part in text.split(","))
        if options.profile:
            print(table((n, d, c), options.device))
            continue
        for loss in names:
            for dtype in (torch.float32, torch.bfloat16):
                steps((n, d, c), loss, dtype, options.device)
        print(f"{text}: {len(names)} losses in fp32 and bf16, every gradient finite", flush=True)


if __name__ == "__main__":
    main()
