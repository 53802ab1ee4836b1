#!/usr/bin/env python3
"""How close `cifarnet train` comes to a bare loop: images a second, in turn, medians; and the report's kind of loop beside.

    python scripts/bench/train.py [--data-dir DIR] [--arch resnet18] [--batch-size 128] [--rounds 5] [--json FILE]

Without --data-dir the images are random pixels, which take as long: nothing here depends on what is in them.

bare: forward, backward, update on one batch that never changes, same layout and precision; nothing else.
cifarnet: the loop of `cifarnet train` with its data, augmentation and sums; graph: with --cuda-graph, on a GPU.
report: PIL transforms, DataLoader, NCHW fp32, metrics read each step, as the report's script did.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.config import TrainConfig
from cifarnet.core.devices import device_name, pick_device
from cifarnet.core.errors import CifarnetError
from cifarnet.core.signals import StopRequest
from cifarnet.core.torch_settings import autocast, measured_convolutions
from cifarnet.data import Dataset, Split, load
from cifarnet.engine.loop import Watcher, run_epoch
from cifarnet.engine.setup import build_run
from cifarnet.models.classifier import build_model
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.random_images import random_images


def bare(config: TrainConfig, data: Dataset, steps: int) -> Callable[[], float]:
    """Seconds of `steps` bare steps."""
    run = build_run(dataclasses.replace(config, augment="none"), data)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    images, labels = next(iter(run.train.epoch(0)))
    images = images.contiguous(memory_format=layout)
    run.model.train()

    def once() -> float:
        start = time.perf_counter()
        with measured_convolutions(run.device, True):
            for _ in range(steps):
                with autocast(run.device, run.precision):
                    features = run.model.features(images)
                run.model.head(features, labels).backward()
                run.optimizer.step()
                run.optimizer.zero_grad(set_to_none=True)
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return once


def ours(config: TrainConfig, data: Dataset, steps: int) -> Callable[[], float]:
    """Seconds of an epoch of `steps` steps in the loop of `cifarnet train`."""
    run = build_run(config, data)
    folder = RunFolder(Path(tempfile.mkdtemp()))

    def once() -> float:
        run.progress.step, run.progress.seconds = 0, 0.0
        run_epoch(run, folder, Watcher(), StopRequest())
        return run.progress.seconds

    return once


def report(config: TrainConfig, data: Dataset, steps: int) -> Callable[[], float]:
    """Seconds of `steps` steps of the report's kind of loop: PIL images, DataLoader, NCHW fp32, metrics each step."""
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data.train.images]
    pairs = [(image, int(label)) for image, label in zip(images, data.train.labels, strict=True)]
    loader = torch.utils.data.DataLoader(pairs, config.batch_size, shuffle=True, collate_fn=lambda rows: (
        torch.stack([pipeline(image) for image, _ in rows]), torch.tensor([label for _, label in rows])
    ))  # fmt: skip
    device = pick_device(config.device)
    model = build_model(config, 10).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    model.train()

    def once() -> float:
        start, loss_sum, hits = time.perf_counter(), 0.0, 0
        for batch, labels in loader:
            optimizer.zero_grad()
            labels = labels.to(device)
            logits = model(batch.to(device))
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            hits += int((logits.argmax(1) == labels).sum())
        return time.perf_counter() - start

    return once


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="holds CIFAR-10 (default: random pixels)")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--loss", default="ce")
    parser.add_argument("--batch-size", type=int, default=128)
    steps = 200 if torch.cuda.is_available() else 6
    parser.add_argument("--steps", type=int, default=steps, help="of a round (6; GPU: 200)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def images_for(options: argparse.Namespace) -> Dataset:
    """As many training images as a round's steps take."""
    count = options.steps * options.batch_size
    if not options.data_dir:
        return random_images(count, options.batch_size)
    data = load("cifar10", options.data_dir)
    return dataclasses.replace(data, train=Split(data.train.images[:count], data.train.labels[:count]))


def measure(loops: dict[str, Callable[[], float]], count: int, rounds: int) -> dict[str, list[float]]:
    """Images a second of each loop, in turn, after a round that warms up."""
    for once in loops.values():
        once()
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, once in loops.items():
            rates[name].append(count / once())
    return rates


def main() -> None:
    """Prints a table and, with --json, writes the figures."""
    options = parse_options()
    config = TrainConfig(arch=options.arch, loss=options.loss, batch_size=options.batch_size)
    data = images_for(options)
    makers = {"bare": bare, "cifarnet": ours, "report": report}
    loops = {name: make(config, data, options.steps) for name, make in makers.items()}
    if torch.cuda.is_available():
        graph = ours(dataclasses.replace(config, cuda_graph=True), data, options.steps)
        try:
            graph()
            loops["graph"] = graph
        except CifarnetError as error:  # the other loops' figures do not depend on it
            print(f"graph: {error}", file=sys.stderr)
    rates = measure(loops, len(data.train), options.rounds)
    run = build_run(config, data)
    ratio = statistics.median(a / b for a, b in zip(rates["cifarnet"], rates["bare"], strict=True))
    document = {"arch": options.arch, "loss": options.loss, "batch_size": options.batch_size, "data": data.name}
    document |= {"device": device_name(run.device), "precision": run.precision, "torch": torch.__version__}
    print("{arch}, {loss}, batch {batch_size}, {data}, {device}, {precision}, torch {torch}".format(**document))
    for name, values in rates.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{name:>10} {middle:>10,.0f} images a second (from {low:,.0f} to {high:,.0f})")
    print(f"cifarnet / bare, median of the pairs: {ratio:.3f}")
    if options.json:
        document |= {"images_per_second": rates, "cifarnet_over_bare": ratio}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
