"""How long a picture takes: the model in torch, the .pt2, and onnxruntime in fp32 and int8, one after the other in each round.

    python scripts/bench/export.py [--rounds 30] [--json docs/results/bench_export_cpu.json]

On the CPU, with the threads that OMP_NUM_THREADS says. All take uint8 images and give probabilities, logits and embeddings. Weights
are random; int8 is fitted to scikit-learn's digits.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from cifarnet.analysis.export.deployed import Deployed, describe
from cifarnet.analysis.export.formats import finished, run_onnx, run_pt2, to_onnx, to_pt2, traced
from cifarnet.analysis.export.quantise import quantised
from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.models.classifier import build_model
from cifarnet.models.model_info import ModelInfo

BATCHES = (1, 64)


def ways_of(arch: str, training: torch.Tensor) -> dict[str, tuple[object, int]]:
    """What computes, and the bytes of its file."""
    config = TrainConfig(arch=arch, loss="arcface")
    model = build_model(config, 10)
    info = ModelInfo(config, tuple("abcdefghij"), (0.3, 0.3, 0.3), (0.32, 0.33, 0.34))
    network, about = Deployed(model, info).eval(), describe(model, info, "fp32")
    program = traced(network, 32)
    proto = to_onnx(program)
    files = {"int8": finished(quantised(proto, training), about), "onnx": finished(proto, about)}
    files["pt2"] = to_pt2(program, about)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())

    def eager(images: np.ndarray) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(images))

    found: dict[str, tuple[object, int]] = {
        "torch": (eager, weights),
        "pt2": (run_pt2(files["pt2"]), len(files["pt2"])),
    }
    return found | {f"onnxruntime {name}": (run_onnx(files[name]), len(files[name])) for name in ("onnx", "int8")}


def main() -> None:
    """Times all, prints a line each, and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    training = load("digits").train.images[:128].permute(0, 2, 3, 1).contiguous()
    rows = []
    for arch in ("baseline", "resnet18"):
        ways = ways_of(arch, training)
        for batch in BATCHES:
            images = training[:batch].numpy()
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(asked.rounds + 3):
                for name, (run, _) in ways.items():
                    started = time.perf_counter()
                    run(images)
                    if turn >= 3:
                        times[name].append(1000 * (time.perf_counter() - started))
            for name, (_, size) in ways.items():
                low, middle = min(times[name]), statistics.median(times[name])
                rows.append(
                    {"arch": arch, "batch": batch, "way": name, "median_ms": middle, "least_ms": low, "bytes": size}
                )
                print(
                    f"{arch} {batch:3} {name:18} median {middle:8.3f} ms, least {low:8.3f} ms, {size / 1e6:.2f} MB",
                    flush=True,
                )
    if asked.json:
        about = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "threads": torch.get_num_threads()}
        about |= {"rounds": asked.rounds, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        asked.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
