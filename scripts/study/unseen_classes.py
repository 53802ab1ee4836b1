#!/usr/bin/env python3
"""Runs that left classes out, measured on them: verification with intervals, identification, quality; and the popular formula of 1:N.

    python scripts/study/unseen_classes.py RUN [RUN...] --data-dir DIR --json docs/results/unseen_classes.json

Each run is of `cifarnet train --hold-out-classes`. Prints the tables of docs/verification.md. The popular formula, on the same scores:
a threshold from all impostor similarities in one list, counted by the mated searches, and no question who is first (insightface before
its pull request 1739; AdaFace's issue 169).
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.analysis.identification.measure import identification
from cifarnet.analysis.identification.protocol import divide
from cifarnet.analysis.quality.measure import measure_quality
from cifarnet.analysis.unit_embeddings import embed_classes
from cifarnet.analysis.verification.measure import verification
from cifarnet.core.percent import percent
from cifarnet.engine.evaluate import open_for_evaluation

FARS = (0.1, 0.01, 0.001)
FPIRS = (0.1, 0.01)


def popular_search(similarity: np.ndarray, mates: np.ndarray, asked: float) -> tuple[float, float]:
    """Threshold and DIR as that code has it; similarity [probes, identities], mates [probes], -1 where there is none."""
    mated = similarity[mates >= 0]
    own = np.zeros(mated.shape, dtype=bool)
    own[np.arange(len(mated)), mates[mates >= 0]] = True
    impostors = np.sort(mated[~own])[::-1]
    threshold = float(impostors[math.ceil(asked * len(mated)) - 1])
    return threshold, float((mated[own] > threshold).mean())


def searched(vectors: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Two of the classes enrolled with five images each, all others searched: ours, and the popular formula."""
    gallery, probes = divide(labels, 5, 0.5, 17)
    found = identification(vectors[gallery], labels[gallery], vectors[probes], labels[probes], fpir=FPIRS)
    similarity = vectors[probes] @ found.templates.vectors.T
    enrolled = np.unique(labels[gallery])
    mates = np.array([int(np.flatnonzero(enrolled == one)[0]) if one in enrolled else -1 for one in labels[probes]])
    rows = []
    for rate in FPIRS:
        threshold, hits = popular_search(similarity, mates, rate)
        rows.append({"asked": rate, "threshold": threshold, "dir": hits, "fpir": float(found.open_set.fpir(threshold))})
    return {"ours": found.to_dict(), "popular": rows}


def measure(run: Path, data_dir: str, bootstrap: int) -> dict[str, Any]:
    """All of a run's numbers."""
    opened = open_for_evaluation(run, data_dir=data_dir)
    found = embed_classes(opened, "unseen")
    vectors, labels = found.vectors, found.labels
    one = verification(vectors, labels, far=FARS, bootstrap=bootstrap).to_dict()
    quality = {name: value for name, value in measure_quality(opened, classes="unseen").items() if name != "curve"}
    return {
        "run": run.name,
        "loss": opened.info.config.loss,
        "images": len(labels),
        "verification": one,
        "identification": searched(vectors, labels),
        "quality": quality,
    }


def rate(value: float, interval: Any = None) -> str:
    """12.3%, or 12.3% (11.0 to 13.5)."""
    ends = f" ({percent(interval[0], 1, '')} to {percent(interval[1], 1, '')})" if interval else ""
    return percent(value, 1) + ends


def main() -> None:
    """Prints two tables, and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [measure(run, options.data_dir, options.bootstrap) for run in options.runs]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print("| loss | EER | TAR at FAR 0.1 | 0.01 | 0.001 | DIR at FPIR 0.1 | 0.01 |\n|---|---|---|---|---|---|---|")
    for row in rows:
        points, found = row["verification"]["operating_points"], row["identification"]["ours"]["operating_points"]
        cells = [rate(row["verification"]["eer"], row["verification"]["eer_interval"])]
        cells += [rate(point["tar"], point["tar_interval"]) for point in points]
        cells += [rate(point["dir"]) for point in found]
        print(f"| `{row['loss']}` | " + " | ".join(cells) + " |")
    print("\n| loss | FPIR asked | ours: FPIR, DIR | the popular formula: FPIR, DIR |\n|---|---|---|---|")
    for row in rows:
        for ours, theirs in zip(
            row["identification"]["ours"]["operating_points"], row["identification"]["popular"], strict=True
        ):
            print(
                f"| `{row['loss']}` | {theirs['asked']:g} | {rate(ours['fpir'])}, {rate(ours['dir'])} | "
                f"{rate(theirs['fpir'])}, {rate(theirs['dir'])} |"
            )


if __name__ == "__main__":
    main()
