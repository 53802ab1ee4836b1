"""Are value, gradients and what is kept finite for a million rows of each loss that pure torch runs? And how far is fp32 from float64?

Norms from 1e-30 to 1e30, |cos| = 1, zero vectors, equal prototypes, 2 to 20,000 classes. Prints a table, one loss a line; minutes on
two cores. Run: python scripts/proof/loss_edges.py [--rows 1000000]
"""

import argparse
import math
import time

import torch

from cifarnet.losses import MarginHead
from cifarnet.losses.more_rows import MORE_LOSSES

SIZE = 32
CLASSES = (2, 3, 10, 100, 20_000)
NUMBERS = 2_000_000  # of cosines held at once
CASES = [(name, {}) for name, row in MORE_LOSSES.items() if row.angular]
CASES += [("ldam", {"drw": True}), ("elastic-arcface", {"plus": True}), ("mv-arcface", {"easy": False})]
CASES += [("sphereface-r", {"variant": v, "norm": n}) for v in ("v0", "v1", "v2") for n in ("hard", "soft", "none")]
CASES += [("sphereface2", {"variant": v}) for v in "AM"] + [("sphereface2", {"detach": True})]


def batch(head: MarginHead, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [rows, D] and labels: a third on or opposite to a prototype, some zero, norms over sixty orders of magnitude."""
    labels = torch.randint(head.num_classes, (rows,))
    features = torch.nn.functional.normalize(torch.randn(rows, SIZE))
    third = rows // 3
    prototypes = head.weight.detach().reshape(head.num_classes, -1, SIZE)
    features[:third] = prototypes[labels[:third], 0] * (2 * torch.randint(2, (third, 1)) - 1)
    features *= 10 ** (torch.rand(rows, 1) * 60 - 30)
    features[-(rows // 50) :] = 0
    return features, labels


def broken(loss: str, options: dict, rows: int) -> tuple[int, int]:
    """Rows tried, and how many batches had something that is not finite, or a loss below zero."""
    tried = bad = 0
    for classes in CLASSES:
        if classes == 2 and loss.startswith("adacos"):
            continue
        head = MarginHead(SIZE, classes, loss, **options)
        with torch.no_grad():
            head.weight[1] = head.weight[0]
        size = max(NUMBERS // (classes * int(options.get("subcenters", 3 if loss == "subcenter-arcface" else 1))), 50)
        share = rows // 100 if classes == 20_000 else rows // 3
        head.count(torch.randint(classes, (10_000,)))
        for start in range(0, share, size):
            head.begin_epoch(min(start // size, 9), 10)
            features, labels = batch(head, min(size, share))
            features.requires_grad_()
            head.zero_grad()
            value = head(features, labels)
            value.backward()
            found = [value, features.grad, head.weight.grad, *head.memory.values()]
            bad += not (all(one.isfinite().all() for one in found) and value >= 0)
            tried += len(labels)
    return tried, bad


def error_of_fp32(loss: str, options: dict) -> float:
    """The largest relative distance of fp32's loss from float64's, over 20 batches of usual features."""
    worst = 0.0
    for seed in range(20):
        torch.manual_seed(seed)
        head = MarginHead(64, 50, loss, **options).eval()
        labels = torch.randint(50, (256,))
        near = head.weight.detach().reshape(50, -1, 64)[labels, 0]
        features = (torch.randn(256, 64) / 8 + torch.rand(256, 1) * near) * 20
        single = head(features, labels).item()
        exact = head.double()(features.double(), labels).item()
        worst = max(worst, abs(single / exact - 1) if exact else math.inf)
    return worst


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each loss, over the numbers of classes")
    rows = parser.parse_args().rows
    torch.manual_seed(0)
    print("| loss | rows | batches not finite | fp32 from float64 | seconds |\n|---|---|---|---|---|")
    for loss, options in CASES:
        started = time.perf_counter()
        tried, bad = broken(loss, options, rows)
        name = " ".join([loss, *(f"{key}={value}" for key, value in options.items())])
        print(
            f"| {name} | {tried:,} | {bad} | {error_of_fp32(loss, options):.1e} | {time.perf_counter() - started:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
