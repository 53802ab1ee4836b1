"""Each architecture with each stem, and each loss: is the exported file, ONNX and of the less deep ones .pt2, what the model is?

    python scripts/proof/export_parity.py [--images 50] [--json docs/results/export_parity.json] [--only baseline]

Random weights, whose BatchNorms have seen the images once, so that no residual branch is 0; pictures are scikit-learn's digits.
Architectures are tried with ce and arcface, both heads on one body and in one file, the losses on the baseline network, a file each.
Rows that are in the JSON file are not made again.
"""

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from cifarnet.analysis.export.deployed import Deployed, describe
from cifarnet.analysis.export.formats import OPSET, finished, run_onnx, run_pt2, to_onnx, to_pt2, traced
from cifarnet.analysis.export.parity import Outputs, compare, outputs_of, scale_of
from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.losses import LOSSES
from cifarnet.losses.heads import build_head
from cifarnet.models.classifier import build_model
from cifarnet.models.model_info import ModelInfo
from cifarnet.models.registry import ARCHS

CLASSES = tuple("abcdefghij")
STEMS = ("small", "cifar", "imagenet")


def cases() -> list[tuple[str, str, tuple[str, ...]]]:
    """(architecture, stem, losses), the small ones first."""
    found = [("baseline", STEMS[0], (loss,)) for loss in LOSSES]
    for stem in STEMS:
        for arch, row in sorted(ARCHS.items(), key=lambda one: depth(one[0])):
            if arch != "baseline" and (stem == STEMS[0] or "stem" in row.options):
                found.append((arch, stem, ("ce", "arcface")))
    return found


def depth(arch: str) -> int:
    """Blocks of a ResNet; 0 of another network."""
    return sum(ARCHS[arch].sizes.get("depths", ()))


class Heads(nn.Module):
    """Several heads on one body: their logits beside each other, [N, 10 times as many]."""

    options = None

    def __init__(self, size: int, losses: tuple[str, ...]) -> None:
        super().__init__()
        self.in_features, self.heads = size, nn.ModuleList(build_head(size, len(CLASSES), loss) for loss in losses)

    def logits(self, features: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([head.logits(features) for head in self.heads], dim=1)


def tried(arch: str, stem: str, losses: tuple[str, ...], images: np.ndarray) -> list[dict[str, object]]:
    """One network, exported twice: of each loss the parity of both files; seconds and bytes of the file."""
    config = TrainConfig(arch=arch, stem=stem, loss=losses[0])
    model, info = build_model(config, len(CLASSES)), ModelInfo(config, CLASSES, (0.3, 0.3, 0.3), (0.32, 0.33, 0.34))
    model.head = heads = Heads(model.head.in_features, losses)
    settle(model, images)
    own, about = outputs_of(model, info, images), describe(model, info, "fp32")
    started = time.perf_counter()
    program = traced(Deployed(model, info).eval(), 32)
    seconds = round(time.perf_counter() - started, 2)
    rows: list[dict[str, object]] = [
        {"arch": arch, "stem": stem, "loss": loss, "trace_seconds": seconds} for loss in losses
    ]
    both = depth(arch) <= (16 if stem == STEMS[0] else 8)  # torch takes minutes to read a deep one
    for kind, run in (("onnx", run_onnx), ("torch", run_pt2))[: 1 + both]:
        started = time.perf_counter()
        data = finished(to_onnx(program), about) if kind == "onnx" else to_pt2(program, about)
        probabilities, logits, embedding = run(data)(images)
        for place, (head, row) in enumerate(zip(heads.heads, rows, strict=True)):
            part = slice(len(CLASSES) * place, len(CLASSES) * (place + 1))
            mine = Outputs(own.probabilities, own.logits[:, part], own.embedding)
            outputs = probabilities, logits[:, part], embedding
            scale = scale_of(SimpleNamespace(head=head), mine.logits)
            found = compare(mine, lambda _, outputs=outputs: outputs, images, None, CLASSES, scale, "fp32")
            row[kind] = {
                "logit_difference": found.logit_difference,
                "allowed": found.logit_allowed,
                "changes": found.changes,
                "near_ties": found.near_ties,
                "one_minus_product": 1 - float((own.embedding * embedding).sum(axis=1).min()),
                "problems": found.problems,
                "bytes": len(data),
                "seconds": round(time.perf_counter() - started, 2),
            }
    return rows


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
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path("docs/results/export_parity.json"))
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    images = load("digits").test.images[: asked.images].permute(0, 2, 3, 1).contiguous().numpy()
    rows = json.loads(asked.json.read_text())["rows"] if asked.json.exists() else []
    known = {(row["arch"], row["stem"], row["loss"]) for row in rows}
    for arch, stem, losses in cases():
        if (arch, stem, losses[0]) in known or asked.only not in arch:
            continue
        torch.manual_seed(0)
        rows += tried(arch, stem, losses, images)
        for row in rows[-len(losses) :]:
            found = row["onnx"]
            print(
                arch, stem, row["loss"], f"{found['logit_difference']:.2g} of {found['allowed']:.2g}", row, flush=True
            )
        versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "opset": OPSET}
        about = {"images": len(images), "of": "scikit-learn's digits", **versions, "threads": torch.get_num_threads()}
        asked.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
