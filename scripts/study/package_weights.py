#!/usr/bin/env python3
"""Makes the weights that ship in the package out of a run, without its local paths.

cifarnet train --recipe baseline-plus --epochs 160 --data-dir DIR --out RUN
python scripts/study/package_weights.py RUN "CIFAR-10, JPEG copy"
"""

import dataclasses
import json
import sys
from pathlib import Path

from cifarnet.models.checkpoint import load_model, save_model
from cifarnet.storage.find_checkpoint import PACKAGED
from cifarnet.storage.run_folder import RunFolder


def main(run: Path, data: str) -> None:
    """Writes cifarnet/weights/baseline-plus.safetensors; `data` says what the figures in its metadata were measured on."""
    folder = RunFolder(run)
    model, info = load_model(folder.last)
    scores = json.loads(folder.summary.read_text())["test"]
    metrics = {"data": data} | {key: scores[key] for key in ("accuracy", "macro_f1", "auroc", "ece")}
    config = dataclasses.replace(info.config, data_dir=None)
    PACKAGED.parent.mkdir(exist_ok=True)
    save_model(PACKAGED, model, dataclasses.replace(info, config=config, metrics=metrics))
    print(f"{PACKAGED}: {PACKAGED.stat().st_size:,} bytes, {metrics}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
