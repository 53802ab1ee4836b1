"""Times the compiled head of other losses, forward and backward, beside the compiled ArcFace, all interleaved.

    OMP_NUM_THREADS=1 python scripts/bench/head_losses.py --losses uniface sphereface2 512,512,10 512,512,1000

`of arcface` is the ratio of medians, and of the fastest; `memory` the peak above what was there before the step.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.losses.heads import MarginHead
from scripts.bench.head_timing import Gradients, Run, measure, peak, warm_up

BASE = "arcface"


def step(shape: tuple[int, int, int], loss: str, device: str) -> Callable[[], Gradients]:
    """A forward and backward pass for the gradients of all that learns."""
    n, d, c = shape
    torch.manual_seed(0)
    head = MarginHead(d, c, loss, backend=device).to(device)
    labels = torch.randint(c, (n,), device=device)
    features = 10 * torch.randn(n, d, device=device) / d**0.5 + 5 * head.weight.detach()[labels]
    inputs = [features.requires_grad_(), *head.parameters()]
    return lambda: torch.autograd.grad(head(features, labels), inputs)


def main() -> None:
    """Prints a line for each shape and loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", metavar="N,D,C")
    parser.add_argument("--losses", nargs="+", required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads\n| N, D, C | loss | median (fastest) ms | of {BASE} | memory MB |\n|---|---|---|---|---|"
    )
    for text in options.shapes:
        n, d, c = (int(part) for part in text.split(","))
        runs = {loss: Run(step((n, d, c), loss, options.device)) for loss in (BASE, *options.losses)}
        memory = {loss: peak(run.call, options.device) for loss, run in runs.items()}
        for run in runs.values():
            warm_up(run, options.device, 3 if c < 10_000 else 0)
        measure(runs, options.device, options.seconds)
        rows = {loss: run.row() for loss, run in runs.items()}
        for loss, row in rows.items():
            median, fastest = row["median_ms"], row["fastest_ms"]
            ratios = f"{median / rows[BASE]['median_ms']:.2f} ({fastest / rows[BASE]['fastest_ms']:.2f})"
            print(f"| {text} | {loss} | {median:.3f} ({fastest:.3f}) | {ratios} | {memory[loss]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
