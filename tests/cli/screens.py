"""Fixed documents of the screens: what a command would have measured, with its numbers as a reader would look for them."""

from types import SimpleNamespace

import torch

from cifarnet.analysis.complexity import Complexity, Layer
from cifarnet.core.config import TrainConfig
from cifarnet.data.facts import MISSING, NO_FILES, DataFacts
from cifarnet.storage.runs import RunFacts

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def scores(names=CIFAR):
    """The scores of a model that takes one image in ten for the next class, and one of the first class for the last."""
    count = len(names)
    confusion = [[900 if i == j else 99 if j == (i + 1) % count else 0 for j in range(count)] for i in range(count)]
    confusion[0][-1] = 1
    classes = [{"name": n, "images": sum(row), "precision": 0.9009, "recall": 0.9091, "f1": 0.905} for n, row in zip(names, confusion, strict=True)]  # fmt: skip
    values = {name: 0.9091 for name in ("micro_precision", "micro_recall", "micro_f1")}
    values |= {"macro_precision": 0.9009, "macro_recall": 0.9091, "macro_f1": 0.905}
    values |= {"auroc": 0.9961, "auprc": None, "ece": 0.0123, "loss": 0.31415, "top5": 0.9988, "accuracy": 0.9091}
    values |= {
        "data_digest": "1a44346f5239e616",
        "source_digest": "1a44346f5239e616" if count == 10 else "4d2d7a41caaca8a8",
    }
    before, after = {"ece": 0.1234, "brier": 0.1357, "nll": 0.31415}, {"ece": 0.0123, "brier": 0.1234, "nll": 0.2718}
    fitted = {"temperature": 1.4567, "images": 5000} if count == 10 else None
    values["calibration"] = {"fitted": fitted, "before": before, "after": after if fitted else None}
    return values | {"images": 999 * count, "classes": classes, "confusion": confusion}


def cost(arch, parameters, macs, batch=1, image_size=32, stem=""):
    layers = (
        Layer("backbone.stages.2.10.convolution", "Conv2d", 1_048_576, (1024, 14, 14), batch * macs),
        Layer("head", "Linear", 10_250, (10,), 0),
    )
    uncounted = {"relu": 49, "_native_batch_norm_legit_no_training": 53, "max_pool2d_with_indices": 1}
    size = dict(classes=10, image_size=image_size, batch=batch, parameters=parameters, macs=batch * macs)
    return Complexity(arch, stem, "ce", activation_bytes=85_910_000, layers=layers, uncounted=uncounted, **size)


BASELINE = cost("baseline", 122_570, 4_548_608)
RESNETS = [
    cost("resnet50", 23_528_522, 4_087_156_736, 2, 224, "imagenet"),
    cost("resnet152", 58_156_618, 11_513_000_000, 2, 224, "imagenet"),
    cost("plainnet50", 20_744_266, 296_439_808, 2, 224),
]

PREDICTIONS = [
    {
        "file": "photos/2024/holidays/a-day-at-the-sea/IMG_20240613_174512_edited.jpeg",
        "classes": ["ship", "airplane", "automobile"],
        "probabilities": [0.98765, 0.01234, 0.00001],
        "unknown": False,
    },
    {"file": "cat.png", "classes": ["cat", "dog", "frog"], "probabilities": [1.0, 0.0, 0.0], "unknown": None},
    {
        "file": "noise.png",
        "classes": ["frog"],
        "probabilities": [0.5],
        "unknown": True,
        "unknown_score": -12.345,
    },
]

FOUND = {
    "versions": {"cifarnet": "0.1.0", "system": "Linux-6.18.44-generic-x86_64-with-glibc2.36", "torch": "2.14.1+cu130"},
    "package": "/home/somebody/cifarnet",
    "devices": {
        "found": [{"name": "cpu", "description": "cpu (64 threads)", "bf16": True}],
        "device": "cpu",
        "precision": "bf16",
        "cores": 1,
    },
    "backend": {"auto": "cpu", "why": "the compiled head is built for this torch and runs on cpu", "build": {}},
    "data": {
        "folders": {"/home/somebody/.cache/cifarnet": "writable"},
        "sets": {
            "cifar10": "found",
            "cifar100": "not in /home/somebody/.cache/cifarnet; fetch it, and name `data_dir`",
        },
    },
    "disk": {"/home/somebody/.cache/cifarnet": 68_182_605_824},
    "runs": {"folder": "/home/somebody/runs", "count": 3, "latest": "/home/somebody/runs/resnet18-adaface-cifar10-3"},
    "problems": ["1024 MB are free for /home/somebody/.cache/cifarnet"],
}


def training(validation):
    """A run as the terminal sees it, and its lines of metrics.jsonl."""
    split = SimpleNamespace(split=range(1_442))
    run = SimpleNamespace(
        config=TrainConfig(arch="baseline", dataset="digits", epochs=200),
        model=SimpleNamespace(head=SimpleNamespace(options=None, apart=False), modules=list),
        ranks=SimpleNamespace(world=1),
        progress=SimpleNamespace(epoch=7, step=3, seconds=1.5),
        train=split,
        validation=SimpleNamespace(split=range(100)) if validation else None,
        test=SimpleNamespace(split=range(355)),
        classes=CIFAR,
        data=SimpleNamespace(digests="f1f4d11ecd1a8e1b" + " of 4d2d7a41caaca8a8" * validation),
        parameters=122_570,
        backend="torch",
        device=torch.device("cpu"),
        precision="bf16",
        work=(7 * 23 + 3, 200 * 23),
        steps=23,
        sums=SimpleNamespace(read=lambda: SimpleNamespace(loss=3 * 64 * 1.2345, correct=150)),
        seen_here=lambda step: 64 * step,
        seen=lambda step: 64 * step * 5_000,
    )
    records = [record(8, 1e-3, 2.25194, 1_684.4, 0.91), record(200, 0.0, 123_456.7, 1_234_567.8, 12_345.6)]
    return run, records if validation else [{k: v for k, v in one.items() if "val" not in k} for one in records]


def record(epoch, lr, loss, rate, seconds):
    losses = {f"{split}_loss": loss for split in ("train", "val", "test")}
    accuracies = {"train_accuracy": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.47612}
    return {"epoch": epoch, "lr": lr, "images_per_second": rate, "seconds": seconds} | losses | accuracies


SUMMARY = {
    "arch": "baseline",
    "loss": "adaface",
    "dataset": "digits",
    "epochs": 1,
    "run": "/home/somebody/work/experiments/runs/baseline-adaface-digits-1",
    "checkpoint": "/home/somebody/work/experiments/runs/baseline-adaface-digits-1/last.safetensors",
    "calibration": {"temperature": 1.4567, "images": 5000},
    "test": scores() | {"calibration": {}},
}

RUNS = [
    RunFacts(
        "resnet18-adaface-cifar10-1",
        "runs/resnet18-adaface-cifar10-1",
        "report",
        "resnet18",
        "adaface",
        "cifar10",
        None,
        17,
        0.95314,
        True,
        250,
        250,
        "finished",
        "2024-06-13T17:45:12+00:00",
    ),
    RunFacts(
        "a-quick-one",
        "runs/a-quick-one",
        "quick",
        "baseline",
        "ce",
        "digits",
        None,
        3,
        0.5,
        False,
        3,
        30,
        "running",
        "2024-06-14T08:00:00+00:00",
    ),
    RunFacts(
        "broken",
        "runs/broken",
        None,
        "resnet50",
        "sphereface",
        "folder",
        None,
        1234,
        None,
        True,
        0,
        30,
        "diverged",
        "2024-06-15T08:00:00+00:00",
    ),
]

CACHE = "/home/somebody/.cache/cifarnet"
MANY = {"no image's suffix": 12, "hidden": 1}
DATA = [
    DataFacts(
        "cifar10", "Python batches", f"{CACHE}/cifar-10-batches-py", 50_000, 10_000, 10, "b2dc3329d4e27c01", "exact"
    ),
    DataFacts("cifar100", status=MISSING, problem=f"not in {CACHE}; cifarnet data cifar100 --download fetches it"),
    DataFacts("digits", NO_FILES, None, 1_442, 355, 10, "78fbbe6ef2c9ac5d"),
    DataFacts(
        "folder", "image folder", "/data/birds", 1_281_167, 50_000, 1_000, "0123456789abcdef", "unverified", MANY
    ),
]
