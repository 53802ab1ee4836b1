"""How many CIFAR images a second are augmented: here a batch at a time, beside torchvision on PIL images one by one.

    python scripts/bench/augment.py [--data-dir DIR] [--json]

The augmentation of the report (crop with padding 4, flip, colour jitter) and normalisation, from uint8 to float32. All
are timed in turns and the median is shown, so that a slow moment of the machine meets each. Goal: 20,000 a second on
2 cores. Without --data-dir the images are noise: the work is the same for any pixels.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torchvision import transforms

from cifarnet.data import Loader, Split, load
from cifarnet.data.augment.batch import POLICIES

BATCH, IMAGES, ROUNDS = 256, 20_480, 7
SAMPLE = 512  # images for torchvision, a round
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def images_from(data_dir: str | None) -> Split:
    """The first images of CIFAR-10, or noise."""
    if data_dir:
        train = load("cifar10", data_dir, download=False).train
        return train.subset(torch.arange(IMAGES))  # type: ignore[return-value]
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    return Split(pixels, torch.zeros(IMAGES, dtype=torch.int64))


def ours(split: Split, policy: str) -> Callable[[], int]:
    loader = Loader(split, BATCH, "cpu", mean=MEAN, std=STD, augment=policy)
    return lambda: sum(len(labels) for _, labels in loader.epoch(0))


def torchvisions(split: Split) -> Callable[[], int]:
    pictures = [transforms.functional.to_pil_image(image) for image in split.images[:SAMPLE]]
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return lambda: len([pipeline(picture) for picture in pictures])


def measure(tasks: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Median images a second of each task, taken in turns."""
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(ROUNDS + 1):  # the first round warms up
        for name, task in tasks.items():
            start = time.perf_counter()
            count = task()
            rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder of CIFAR-10's binary files")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    split = images_from(options.data_dir)
    tasks = {f"cifarnet {policy}": ours(split, policy) for policy in POLICIES}
    tasks["torchvision on PIL, report, one core"] = torchvisions(split)
    rates = measure(tasks)
    if options.json:
        setting = {"threads": torch.get_num_threads(), "batch": BATCH, "torch": torch.__version__}
        print(json.dumps({"images_per_second": rates, **setting}))
        return
    print(f"images a second, {torch.get_num_threads()} threads, batches of {BATCH}, torch {torch.__version__}")
    for name, rate in rates.items():
        print(f"{name:40}{rate:12,.0f}")


if __name__ == "__main__":
    main()
