"""Each architecture with each stem, and each loss: is the exported file, ONNX and .pt2, what the model is?

    python scripts/proof/export_parity.py [--images 64] [--json docs/results/export_parity.json] [--only baseline]

Random weights, whose BatchNorms have seen the images once, so that no residual branch is 0; pictures are scikit-learn's digits.
Architectures are tried with ce and arcface, the losses on the baseline network. Rows that are in the JSON file are not made again.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from cifarnet.analysis.export.deployed import Deployed, describe
from cifarnet.analysis.export.formats import OPSET, finished, run_onnx, run_pt2, to_onnx, to_pt2, traced
from cifarnet.analysis.export.parity import compare, outputs_of, scale_of
from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.losses import LOSSES
from cifarnet.models.checkpoint import ModelInfo
from cifarnet.models.classifier import build_model
from cifarnet.models.registry import ARCHS

CLASSES = tuple("abcdefghij")
STEMS = ("small", "cifar", "imagenet")


def cases() -> list[tuple[str, str, str]]:
    """(architecture, stem, loss)."""
    found = [("baseline", "small", loss) for loss in LOSSES]
    for arch, row in ARCHS.items():
        stems = STEMS if "stem" in row.options else STEMS[:1]
        found += [(arch, stem, loss) for stem in stems for loss in ("ce", "arcface")]
    return list(dict.fromkeys(found))


def tried(arch: str, stem: str, loss: str, images: np.ndarray) -> dict[str, object]:
    """One model, exported twice: the parity of both, seconds and bytes."""
    config = TrainConfig(arch=arch, stem=stem, loss=loss)
    model, info = build_model(config, 10), ModelInfo(config, CLASSES, (0.3, 0.3, 0.3), (0.32, 0.33, 0.34))
    settle(model, images)
    own = outputs_of(model, info, images)
    scale, about = scale_of(model, own.logits), describe(model, info, "fp32")
    row: dict[str, object] = {"arch": arch, "stem": stem, "loss": loss, "scale": scale}
    started = time.perf_counter()
    program = traced(Deployed(model, info).eval(), 32)
    row["trace_seconds"] = round(time.perf_counter() - started, 2)
    for kind, run in (("onnx", run_onnx), ("torch", run_pt2)):
        started = time.perf_counter()
        data = finished(to_onnx(program), about) if kind == "onnx" else to_pt2(program, about)
        found = compare(own, run(data), images, None, CLASSES, scale, "fp32")
        row[kind] = {
            "logit_difference": found.logit_difference,
            "allowed": found.logit_allowed,
            "changes": found.changes,
            "near_ties": found.near_ties,
            "one_minus_cosine": 1 - found.cosine,
            "problems": found.problems,
            "bytes": len(data),
            "seconds": round(time.perf_counter() - started, 2),
        }
    return row


@torch.no_grad()
def settle(model: nn.Module, images: np.ndarray) -> None:
    """Random weights and statistics in every BatchNorm, the statistics those of the images."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            if module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    model.train()
    model.features(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    model.eval()


def main() -> None:
    """Tries all cases, prints a line each, and writes the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--json", type=Path, default=Path("docs/results/export_parity.json"))
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    images = load("digits").test.images[: asked.images].permute(0, 2, 3, 1).contiguous().numpy()
    rows = json.loads(asked.json.read_text())["rows"] if asked.json.exists() else []
    known = {(row["arch"], row["stem"], row["loss"]) for row in rows}
    for arch, stem, loss in cases():
        if (arch, stem, loss) in known or asked.only not in arch:
            continue
        torch.manual_seed(0)
        rows.append(tried(arch, stem, loss, images))
        found = rows[-1]["onnx"]
        print(
            arch,
            stem,
            loss,
            f"{found['logit_difference']:.2g} of {found['allowed']:.2g}",
            found["problems"],
            flush=True,
        )
        machine = {"cpu": platform.processor(), "threads": torch.get_num_threads()}
        versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "opset": OPSET}
        document = {"images": len(images), "of": "scikit-learn's digits", **versions, **machine, "rows": rows}
        asked.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
