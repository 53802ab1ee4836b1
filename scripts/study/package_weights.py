#!/usr/bin/env python3
"""Makes weights that ship in the package out of a run: filters in fp16, no local paths, measured as they are shipped.

cifarnet train --recipe speed --epochs 60 --cutout 12 --val-fraction 0.04 --eval-every 20 --data-dir DIR --out RUN
python scripts/study/package_weights.py RUN cifarnet/weights/speednet.safetensors --data-dir DIR --json docs/results/packaged_speednet.json
cifarnet train --recipe baseline-plus --epochs 80 --data-dir DIR --out RUN2
python scripts/study/package_weights.py RUN2 cifarnet/weights/baseline-plus.safetensors --data-dir DIR
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet import evaluate
from cifarnet.core.errors import CifarnetError, Refused
from cifarnet.data import load, pixels_of
from cifarnet.models.checkpoint import load_model, save_halved
from cifarnet.storage.run_folder import RunFolder
from scripts.bench.head_timing import processor

METRICS = ("accuracy", "macro_f1", "auroc")


def package(run: Path, target: Path, data_dir: Path | None) -> dict[str, object]:
    """Writes a run's best model, else its last, to `target` and measures it on the test images; returns the metrics.

    They are written into its metadata, with whose pixels they were measured on ("data") and the calibration error ("ece", of the
    calibrated probabilities where the run held images out); where the run's data lay is not.

    Raises:
        Refused: the run has no checkpoint.
    """
    chosen = RunFolder(run).checkpoint
    if chosen is None:
        raise Refused(str(run), "holds no checkpoint", "train it to its end first")
    model, info = load_model(chosen)
    info = dataclasses.replace(info, config=dataclasses.replace(info.config, data_dir=None), metrics={})
    target.parent.mkdir(parents=True, exist_ok=True)
    save_halved(target, model, info)
    scores = evaluate(target, data_dir=data_dir, precision="fp32")  # as `cifarnet predict` computes
    metrics = {"data": pixels_of(load(info.config.dataset, data_dir))} | {name: scores[name] for name in METRICS}
    metrics["ece"] = (scores["calibration"]["after"] or scores["calibration"]["before"])["ece"]
    save_halved(target, model, dataclasses.replace(info, metrics=metrics))
    return metrics


def facts(run: Path, target: Path, metrics: dict[str, object]) -> dict[str, object]:
    """How the shipped weights came about, as plain JSON values; seconds are those of training alone, on this machine."""
    folder = RunFolder(run)
    config, summary = folder.read_config(), json.loads(folder.summary.read_text())
    history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return {
        "file": target.name,
        "bytes": target.stat().st_size,
        "metrics": metrics,
        "epochs": summary["epochs"],
        "seconds": summary["seconds"],
        "processor": processor(),
        "precision": config.precision,
        "config": config.to_dict() | {"data_dir": None},
        "history": history,
    }


def main() -> None:
    """Prints what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path, help="the .safetensors file")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument(
        "--json", type=Path, help="where to write how it came about, where it was trained on this machine"
    )
    options = parser.parse_args()
    metrics = package(options.run, options.target, options.data_dir)
    if options.json:
        options.json.write_text(json.dumps(facts(options.run, options.target, metrics), indent=2) + "\n")
    print(f"{options.target}: {options.target.stat().st_size:,} bytes, {metrics}")


if __name__ == "__main__":
    try:
        main()
    except CifarnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
