"""Each loss's step beside ArcFace's with as many prototypes, forward and backward, in turn: medians and the fastest. Prints a table.

python scripts/bench/losses.py [--threads 2] [--seconds 20] [512,512,10 512,512,1000] [--losses ldam mv-arcface] [--memory 100000]
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from head_timing import Run, measure, peak, processor, warm_up

from cifarnet.core.freed_memory import keep_freed_memory
from cifarnet.losses import LOSSES, MarginHead, kernels

CASES: list[tuple[str, dict]] = [(name, {}) for name, row in LOSSES.items() if row.angular]
CASES += [("ldam", {"drw": True}), ("elastic-arcface", {"plus": True})]
CASES += [("sphereface-r", {"variant": "v0"}), ("sphereface-r", {"variant": "v2", "norm": "none"})]
CASES += [("sphereface2", {"variant": "A"})]


def title(loss: str, options: dict) -> str:
    """arcface, or ldam drw=True."""
    return " ".join([loss, *(f"{name}={value}" for name, value in options.items())])


def prototypes_a_class(loss: str, options: dict) -> int:
    """How many a class has: several of subcenter-arcface."""
    return int(LOSSES[loss].with_defaults(options).get("subcenters", 1))


def step_of(loss: str, options: dict, shape: tuple[int, int, int]) -> Run:
    """A head's training step with its gradients."""
    samples, size, classes = shape
    torch.manual_seed(0)
    head = MarginHead(size, classes, loss, **options).train()
    head.count(torch.randint(classes, (50 * classes,)))
    head.begin_epoch(9, 10)
    features = torch.randn(samples, size).mul(10).requires_grad_()
    labels = torch.randint(classes, (samples,))
    learned = [features, *head.parameters()]

    def call() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(head(features, labels), learned)

    return Run(call)


def main() -> None:
    """Prints a line a loss and shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["512,512,10", "512,512,1000"], help="N,D,C")
    parser.add_argument("--losses", nargs="*", help="only these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="a loss and shape")
    parser.add_argument(
        "--memory", type=int, default=0, help="classes, with which the most memory of a step is measured"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as training does; else a step's page faults are the allocator's luck
    cases = [case for case in CASES if not arguments.losses or case[0] in arguments.losses]
    found = []
    print(
        f"{processor()}, {arguments.threads} threads\n| loss | backend | shape | ms | ArcFace ms | ratio | of the fastest |"
    )
    for shape in [tuple(map(int, text.split(","))) for text in arguments.shapes]:
        for loss, options in cases:
            beside = *shape[:2], shape[2] * prototypes_a_class(loss, options)
            runs = {"arcface": step_of("arcface", {}, beside), "loss": step_of(loss, options, shape)}
            for run in runs.values():
                warm_up(run, "cpu", 3)
            measure(runs, "cpu", arguments.seconds, least=5)
            ours, arcface = runs["loss"].row(), runs["arcface"].row()
            row = {"loss": title(loss, options), "backend": kernels.resolve("auto", "cpu", loss=loss), "shape": shape}
            row |= {"ms": ours["median_ms"], "arcface_ms": arcface["median_ms"]}
            row |= {
                "ratio": ours["median_ms"] / arcface["median_ms"],
                "fastest": ours["fastest_ms"] / arcface["fastest_ms"],
            }
            found.append(row)
            print(
                f"| {row['loss']} | {row['backend']} | {shape} | {row['ms']:.3f} | {row['arcface_ms']:.3f} | {row['ratio']:.2f} | "
                f"{row['fastest']:.2f} |",
                flush=True,
            )
    for loss, options in cases if arguments.memory else []:
        run = step_of(loss, options, (512, 512, arguments.memory))
        run.call()
        most = peak(run.call, "cpu")
        found.append({"loss": title(loss, options), "classes": arguments.memory, "peak_mb": most})
        print(f"| {title(loss, options)} | {arguments.memory:,} classes | {most:.0f} MB |", flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"processor": processor(), "threads": arguments.threads, "rows": found}, indent=1)
        )


if __name__ == "__main__":
    main()
