#!/usr/bin/env python3
"""Calibrated runs on pictures of none of their classes: how many are taken for one, by four scores. Prints a table.

    python scripts/study/unknown.py RUN [RUN...] --data-dir DIR [--json FILE]

The pictures: digits (resized to the model's), uniform noise, textures made here (gratings, dots, checks), and the classes that a
run left out. FPR@95: the share of them that scores like 95% of the test images (J. Yang et al. 2022, OpenOOD). "rejected": the
share that `cifarnet predict` calls none of the classes.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.core.percent import percent
from cifarnet.data import load
from cifarnet.engine.calibrate import calibration_scores
from cifarnet.engine.evaluate import collect_logits
from cifarnet.engine.open_split import Opened, open_split
from cifarnet.engine.pixels import normalized_batch
from cifarnet.models.calibration import energy_scores, probabilities
from cifarnet.models.checkpoint import load_model
from cifarnet.storage.find_checkpoint import find_checkpoint

MADE = 2000  # pictures of noise, of textures


def textures(size: int) -> Tensor:
    """uint8 [2000, 3, size, size]: gratings, dots and checks of two colours, at any angle and frequency."""
    generator, (rows, columns) = np.random.default_rng(0), np.mgrid[0:size, 0:size]
    found = []
    for number in range(MADE):
        angle, frequency = generator.uniform(0, np.pi), generator.uniform(0.15, 1.5)
        along = frequency * (np.cos(angle) * columns + np.sin(angle) * rows)
        across = frequency * (np.cos(angle) * rows - np.sin(angle) * columns)
        waves = np.sin(along) if number % 3 == 0 else np.sin(along) * np.sin(across)
        waves = np.sign(waves) if number % 3 == 2 else waves
        one, other = generator.uniform(0, 255, (2, 3, 1, 1))
        found.append(one * (1 + waves) / 2 + other * (1 - waves) / 2)
    return torch.from_numpy(np.array(found)).round().to(torch.uint8)


def strangers(opened: Opened) -> dict[str, Tensor]:
    """Pictures of none of the model's classes, uint8 [N, 3, size, size] by what they show."""
    size = opened.info.config.image_size
    digits = F.interpolate(load("digits").train.images.float(), size=(size, size), mode="bilinear")
    noise = torch.randint(0, 256, (MADE, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = {"digits": digits.round().to(torch.uint8), "noise": noise, "textures": textures(size)}
    left_out = [n for n, name in enumerate(opened.data.classes) if name not in opened.info.classes]
    if left_out:
        found["classes left out"] = opened.data.test.images[torch.isin(opened.data.test.labels, torch.tensor(left_out))]
    return found


def outputs(opened: Opened, images: Tensor) -> Tensor:
    """The logits [N, C] of pictures."""
    info, none = opened.info, torch.zeros(500, dtype=torch.long)
    batches = ((normalized_batch(list(part), info.mean, info.std, opened.device), none) for part in images.split(500))
    return collect_logits(opened.model, batches, opened.device, opened.precision)[0]


def measure(run: Path, data_dir: str) -> dict:
    """Calibration on the test images before and after, and what became of each kind of stranger."""
    path = find_checkpoint(run)
    opened = open_split(path, *load_model(path), "test", data_dir=data_dir)
    kept = opened.info.calibration
    if kept is None:
        raise SystemExit(f"{run} is not calibrated: cifarnet calibrate {run}")
    logits, labels = collect_logits(opened.model, opened.loader.epoch(0), opened.device, opened.precision)
    scores = {
        "energy": lambda z: energy_scores(z, kept.temperature),
        "energy, T = 1": lambda z: energy_scores(z, 1.0),
        "largest logit": lambda z: z.max(dim=1).values.double(),
        "largest probability": lambda z: probabilities(z, kept).max(dim=1).values,
    }
    document = {
        "run": run.name,
        "loss": opened.info.config.loss,
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "fitted": vars(kept),
        "before": vars(calibration_scores(logits, labels)),
        "after": vars(calibration_scores(logits, labels, kept)),
        "test_images_rejected": float((energy_scores(logits, kept.temperature) < kept.unknown_at).double().mean()),
        "strangers": {},
    }
    for kind, images in strangers(opened).items():
        theirs = outputs(opened, images)
        rejected = float((energy_scores(theirs, kept.temperature) < kept.unknown_at).double().mean())
        document["strangers"][kind] = {"images": len(images), "rejected": rejected, "scores": {}}
        for name, score in scores.items():
            ours, others = score(logits).numpy(), score(theirs).numpy()
            truth = np.r_[np.ones(len(ours)), np.zeros(len(others))]
            at = np.sort(ours)[int(0.05 * len(ours))]
            numbers = {"fpr95": float((others >= at).mean()), "auroc": float(roc_auc_score(truth, np.r_[ours, others]))}
            document["strangers"][kind]["scores"][name] = numbers
    return document


def main() -> None:
    """Measures each run and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [measure(run, options.data_dir) for run in options.runs]
    print("| loss | accuracy | temperature | ECE | Brier | NLL |\n|---|---|---|---|---|---|")
    for one in found:
        before, after = one["before"], one["after"]
        cells = [f"{percent(before['ece'])} → {percent(after['ece'])}"]
        cells += [f"{before[key]:.4f} → {after[key]:.4f}" for key in ("brier", "nll")]
        print(
            f"| `{one['loss']}` | {percent(one['accuracy'])} | {one['fitted']['temperature']:.3f} | {' | '.join(cells)} |"
        )
    kinds, names = list(found[0]["strangers"]), list(next(iter(found[0]["strangers"].values()))["scores"])
    print("\n| loss | shown | rejected | " + " | ".join(f"FPR@95, {name}" for name in names) + " |")
    print("|---" * (3 + len(names)) + "|")
    for one in found:
        print(f"| `{one['loss']}` | test images | {percent(one['test_images_rejected'], 1)} |" + " |" * len(names))
        for kind in kinds:
            row = one["strangers"][kind]
            cells = [percent(row["scores"][name]["fpr95"], 1) for name in names]
            print(f"| | {kind} | {percent(row['rejected'], 1)} | {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
