"""The CUDA kernels without a GPU: that they compile for every architecture without spilling, and that their logic, run on
the CPU a thread after the other, gives the float64 reference's numbers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import INCLUDES, ROOT
from margin_reference import ORIGINAL
from test_kernels import TOLERANCE, error, expected, sample
from torch.utils.cpp_extension import CUDA_HOME

from cifarnet import kernels

NVCC = shutil.which("nvcc") or (
    f"{CUDA_HOME}/bin/nvcc" if CUDA_HOME and Path(CUDA_HOME, "bin", "nvcc").exists() else None
)


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA")
def test_cuda_compiles_and_does_not_spill(tmp_path):
    architectures = ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=[sm_90,compute_90]"]
    options = ["-O3", "-std=c++20", "--threads=2", "-Xptxas=-v", "-Xcompiler=-fPIC"]
    command = [NVCC, *options, *architectures, *INCLUDES, "-c", ROOT / "csrc" / "margin_head_cuda.cu"]
    result = subprocess.run([*command, "-o", tmp_path / "kernels.o"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    spills = re.findall(
        r"Compiling entry function '(\S+)' for '(sm_\d+)'.*?(\d+) bytes spill stores", result.stderr, re.S
    )
    assert {arch for _, arch, _ in spills} == {"sm_80", "sm_90"} and sum(
        "few_backward" in name for name, *_ in spills
    ) == 10
    assert [entry for entry in spills if entry[2] != "0"] == []
    # The static shared memory beside the prototypes: few() leaves kFewStatic for it.
    fixed = re.findall(r"few_backward.*?(\d+) bytes smem", result.stderr, re.S)
    assert len(fixed) == 10 and all(0 < int(size) <= 16 << 10 for size in fixed)


def run(on_host, loss, features, weight, labels, state, training=True, **constants):
    constants = {"h": 0.333, "t_alpha": 0.01, "easy": False, **ORIGINAL[loss], **constants}
    options = [constants[name] for name in ("scale", "margin", "h", "t_alpha", "easy")]
    value, new, rows, cosines = on_host.margin_loss(
        features, weight, labels, state, kernels.LOSS_NUMBERS[loss], *options, training
    )
    grad = torch.tensor(1.5)
    return value, new, *on_host.margin_loss_backward(grad, features, weight, labels, rows, cosines, True, True)


# N, D, C, the most cosines that are kept: few classes (more rows than a chunk of them), products, two chunks of classes
REGIMES = {
    "few": (150, 40, 10, 1 << 23),
    "tiled": (9, 33, 21, 1 << 23),
    "products": (9, 20, 70, 1 << 23),
    "chunks": (5, 12, 1500, 0),
}


# Every loss in fp32; in 16 bits, where the products' scaling differs, two of them: sphereface's scale is |z|.
KINDS = [(loss, torch.float32) for loss in ORIGINAL] + [
    (loss, dtype) for loss in ("arcface", "sphereface") for dtype in (torch.bfloat16, torch.float16)
]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("loss", "dtype"), KINDS)
def test_value_and_gradients_on_the_host(on_host, loss, regime, dtype):
    n, d, c, kept = REGIMES[regime]
    on_host.keep_cosines(kept)
    batch = sample(loss, n, d, c, dtype=dtype, weight_dtype=dtype if loss != "arcface" else torch.float32)
    got, truth = run(on_host, loss, *batch), expected(loss, *batch)
    for name, actual, wanted in zip(("loss", "state", "features", "weight"), got, truth, strict=True):
        if wanted.numel():
            assert error(actual, wanted) <= TOLERANCE[dtype], name
    assert got[2].dtype == batch[0].dtype and got[3].dtype == batch[1].dtype


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("loss", ["sphereface", "arcface"])
def test_finite_for_any_finite_input_on_the_host(on_host, loss, regime):
    n, d, c, kept = REGIMES[regime]
    on_host.keep_cosines(kept)
    z, w, y, state = sample(loss, n, d, c)
    z[0], z[1], z[2], z[3] = 7 * w[y[0]], -w[y[1]], 0, 3e38
    w[(y[4] + 1) % c], w[(y[4] + 2) % c] = 0, 3e38
    for dtype in TOLERANCE:
        if dtype == torch.float16:
            z, w = z.clamp(-65504, 65504), w.clamp(-65504, 65504)
        for x in run(on_host, loss, z.to(dtype), w.to(dtype), y, state, scale=128.0):
            assert x.isfinite().all()


@pytest.mark.parametrize("regime", REGIMES)
def test_a_label_out_of_range_is_a_device_side_assertion(on_host, regime):
    n, d, c, kept = REGIMES[regime]
    on_host.keep_cosines(kept)
    z, w, y, state = sample("arcface", n, d, c)
    y[2] = c
    with pytest.raises(RuntimeError, match="device-side assertion: label >= 0"):
        run(on_host, "arcface", z, w, y, state)
