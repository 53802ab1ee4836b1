#!/usr/bin/env python3
"""What training the smallest maps as matrix products saves: milliseconds forward and backward, in turn, medians.

    python scripts/bench/conv3x3.py [--batch-size 512] [--rounds 7] [--json FILE]

Each layer of 3x3 that a ResNet-18 has on maps of 1x1 and 2x2, and its whole step, as the library's convolution and as
`cifarnet.models.conv3x3` trains it. CPU; bf16 where that is the faster, channels_last.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cifarnet.core.devices import device_name, pick_precision
from cifarnet.core.torch_settings import autocast
from cifarnet.models import build_backbone, conv3x3

LAYERS = ((512, 512, 2, 1), (256, 512, 2, 2), (256, 256, 2, 1), (512, 512, 1, 1))  # in, out, side of the map, stride
CPU = torch.device("cpu")


def main() -> None:
    """Times every layer and the step, prints a line each, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    precision = pick_precision("auto", CPU)
    nets: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        f"{inputs} to {outputs} channels on {side}x{side}, stride {stride}": (
            conv3x3.conv3x3(inputs, outputs, stride),
            (inputs, side, side),
        )
        for inputs, outputs, side, stride in LAYERS
    }
    nets["ResNet-18, 32x32"] = (build_backbone("resnet18"), (3, 32, 32))
    nets["ResNet-18, 16x16"] = (build_backbone("resnet18"), (3, 16, 16))
    rows = []
    for name, (net, shape) in nets.items():
        step = make_step(net, torch.randn(options.batch_size, *shape), precision)
        library, product = time_both(step, options.rounds)
        rows.append({"net": name, "convolution_ms": library, "product_ms": product, "ratio": library / product})
        print(f"{name:<44} convolution {library:8.1f} ms   product {product:8.1f} ms   {library / product:.2f}x")
    facts = {
        "device": device_name(CPU),
        "precision": precision,
        "batch": options.batch_size,
        "torch": torch.__version__,
    }
    if options.json:
        options.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


def make_step(net: nn.Module, x: torch.Tensor, precision: str) -> Callable[[], None]:
    """Forward and backward of `net` on the batch x, [B, C, H, W]."""
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.contiguous(memory_format=torch.channels_last)
    inputs = x.requires_grad_() if x.shape[1] > 3 else x  # an image needs no gradient, a map does

    def step() -> None:
        with autocast(CPU, precision):
            y = net(inputs)
        y.float().sum().backward()
        net.zero_grad(set_to_none=True)

    return step


def time_both(step: Callable[[], None], rounds: int) -> tuple[float, float]:
    """Median milliseconds of the step as convolutions and as products, in turn, after one of each that warms up."""
    sides = {"convolution": 0, "product": conv3x3.LARGEST_SIDE}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            conv3x3.LARGEST_SIDE = side
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return statistics.median(times["convolution"][1:]), statistics.median(times["product"][1:])


if __name__ == "__main__":
    main()
