"""The Triton candidate of scripts/bench/head.py without a GPU: its numbers in the interpreter, and what it compiles to for sm_90."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
triton = pytest.importorskip("triton", reason="torch brings Triton with CUDA, on Linux")
sys.path.insert(0, str(ROOT))
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"

# N, D, C, numbers of unit prototypes that are kept; 128 classes a chunk at least, no size a multiple of a tile's.
INTERPRETED = """
import json, sys, torch
from scripts.bench import head, head_triton
from scripts.bench.head_competitors import reference
n, d, c, head_triton.KEPT = json.loads(sys.argv[1])
head_triton.COSINES, found = 1 << 13, []
case = head.Case.make(n, d, c, "cpu", torch.bfloat16)
with torch.no_grad():
    case.weight[5] *= 100
    case.labels[:9] = 7
case.truth = case.in_double(n)
for tile in (head_triton.Tile(64, 64, 32), head_triton.Tile(64, 256, 64)):
    loss = head_triton.ArcFace.apply(case.features, case.weight, case.labels, tile)
    gradients = torch.autograd.grad(loss, (case.features, case.weight))
    wanted = reference(case.features.double(), case.weight.double(), case.labels)
    rows = (gradients[1].double() - case.truth[1]).norm(dim=1) / case.truth[1].norm(dim=1)
    found.append([loss.item() / wanted.item() - 1, case.error(gradients), rows.max().item()])
print(json.dumps(found))
"""


@pytest.mark.parametrize("shape", [(70, 40, 300, 1 << 28), (20, 33 * 8, 1100, 0)])
def test_loss_and_gradients_in_the_interpreter(shape):
    """fp16 cosines at s = 64 are right to 2^-11 / 64 of a logit each; dz is rounded to bf16."""
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, json.dumps(shape)],
        cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for loss, error, worst_row in json.loads(done.stdout):
        assert abs(loss) < 1e-3 and error < 4e-3 and worst_row < 2e-2


def compiled(kernel, tile):
    """PTX for sm_90, and the bytes that ptxas spills."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def tiles(rows, columns):
        return f"tensordesc<fp16[{rows}, {columns}]>"

    types = {"z": tiles(tile.samples, tile.numbers), "w": tiles(tile.classes, tile.numbers), "labels": "*i64"}
    types |= {"shares": tiles(tile.samples, tile.classes), "power": "fp32", "boost": "fp32"}
    types |= dict.fromkeys(("peaks", "rests"), "*fp32") | dict.fromkeys(("samples", "count", "first"), "i32")
    constants = {"D": 512, "BN": tile.samples, "BC": tile.classes, "BK": tile.numbers}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    made = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options=options)
    return made.asm["ptx"], made.metadata.shared


@pytest.mark.skipif(not PTXAS.exists(), reason="this Triton has no ptxas")
@pytest.mark.parametrize("classes", [128, 256])
def test_hopper_gets_its_own_products_and_copies_and_nothing_spills(tmp_path, classes):
    from scripts.bench import head_triton

    tile = head_triton.Tile(classes=classes)
    for kernel in (head_triton.sum_exponentials, head_triton.gradient_shares):
        ptx, shared = compiled(kernel, tile)
        assert "wgmma.mma_async" in ptx and "cp.async.bulk.tensor" in ptx
        (tmp_path / "kernel.ptx").write_text(ptx)
        command = [PTXAS, "-v", "-arch=sm_90a", tmp_path / "kernel.ptx", "-o", tmp_path / "kernel.cubin"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert re.search(r"(\d+) bytes spill stores", told)[1] == "0"
        blocks = 2 if classes == 128 else 1  # at a time on a multiprocessor: 64 K registers, 227 KB of shared memory
        assert blocks * 32 * tile.warps * int(re.search(r"Used (\d+) registers", told)[1]) <= 1 << 16
        assert blocks * (shared + 1024) <= 227 << 10
