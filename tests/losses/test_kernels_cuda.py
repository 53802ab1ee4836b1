"""The CUDA kernels without a GPU: that none spills on any architecture, and that their logic, run on the CPU a thread after
the other, gives the float64 reference's numbers."""

import re
import shutil
import subprocess
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from head_backends import options_of
from margin_reference import ORIGINAL
from test_kernels import EXTENSION, TOLERANCE, error, expected, sample

from cifarnet.losses import kernels


def cuobjdump():
    """The tool that lists what each kernel of a library takes: the toolkit's, or the one that Triton brings."""
    triton = find_spec("triton")
    brought = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if triton else None
    return shutil.which("cuobjdump") or (brought if brought and brought.exists() else None)


@pytest.mark.skipif(not kernels.build_info().get("cuda"), reason="the extension is not built for CUDA")
@pytest.mark.skipif(cuobjdump() is None, reason="neither the CUDA toolkit nor Triton has cuobjdump here")
def test_no_kernel_spills():
    """Of the library as it is built. Registers that are spilled lie on a kernel's stack, in the GPU's memory."""
    command = [cuobjdump(), "--dump-resource-usage", EXTENSION.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stacks, fixed = {}, {}
    for part in text.split("arch = ")[1:]:
        for name, stack, shared in re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+) SHARED:(\d+)", part):
            stacks[part.split()[0], name], fixed[part.split()[0], name] = int(stack), int(shared)
    built = {"sm_" + arch.replace(".", "") for arch in kernels.build_info()["archs"].split(",") if "PTX" not in arch}
    assert {arch for arch, _ in stacks} == built
    # own_classes calls a function that returns three numbers, once a row: they lie on its stack.
    assert {entry: size for entry, size in stacks.items() if size > (32 if "own_classes" in entry[1] else 0)} == {}
    # The static shared memory beside the prototypes: few() leaves kFewStatic for it.
    few = [size for (_, name), size in fixed.items() if "few_backward" in name]
    assert len(few) == 5 * len(built) and all(0 < size <= 16 << 10 for size in few)


OTHERS = {loss: options_of(loss, ORIGINAL[loss]).others for loss in ORIGINAL}


def run(on_host, loss, features, weight, labels, state, training=True, **constants):
    options = options_of(loss, {**ORIGINAL[loss], **constants})
    value, new, rows, cosines = on_host.margin_loss(
        features,
        weight,
        labels,
        state,
        [on_host.losses().index(loss), options.scale, options.margin, *options.others],
        training,
    )
    grad = torch.tensor(1.5)
    return value, new, *on_host.margin_loss_backward(grad, features, weight, labels, rows, cosines, True, True)


# N, D, C, the most cosines that are kept: few classes (more rows than a chunk of them), products, two chunks of classes (the
# second no multiple of eight), and two of which the cosines are kept all the same
REGIMES = {
    "few": (150, 40, 10, 1 << 23),
    "tiled": (9, 33, 21, 1 << 23),
    "products": (9, 20, 70, 1 << 23),
    "chunks": (5, 12, 1500, 0),
    "kept chunks": (5, 12, 1504, 1 << 23),
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


HOPPER, SMALLER = 227 << 10, 99 << 10  # bytes of shared memory that a block may have: H100; GeForce 30


@pytest.fixture
def limited(on_host):
    """limited(bytes): the device has so much shared memory; put back afterwards."""
    yield on_host.limit_shared
    on_host.limit_shared(HOPPER)


@pytest.mark.parametrize("limit", [HOPPER, SMALLER])
@pytest.mark.parametrize(
    "classes_size", [(20, 512), (10, 1024), (24, 512), (16, 500), (13, 1000), (10, 2048), (64, 900)]
)
def test_no_kernel_takes_more_shared_memory_than_was_asked_for(on_host, limited, classes_size, limit):
    """Static and dynamic together; the driver's rule is check_shared() in cuda_on_host.h."""
    c, d = classes_size
    limited(limit)
    on_host.keep_cosines(1 << 23)
    batch = sample("arcface", 9, d, c)
    for actual, wanted in zip(run(on_host, "arcface", *batch), expected("arcface", *batch), strict=True):
        assert not wanted.numel() or error(actual, wanted) <= 1e-5


@pytest.mark.parametrize(("limit", "few"), [(HOPPER, True), (SMALLER, True), (80 << 10, False)])
def test_the_devices_shared_memory_decides_what_few_classes_are(on_host, limited, limit, few):
    """ResNet-50 on CIFAR-10, C = 10 and D = 2048, takes three launches where its prototypes, 80 KB, fit beside the rest."""
    limited(limit)
    on_host.keep_cosines(1 << 23)
    before = on_host.launches()
    run(on_host, "adaface", *sample("adaface", 9, 2048, 10))
    assert (on_host.launches() - before == 3) == few


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("loss", ["arcface", "curricularface", "sphereface"])
def test_the_largest_other_cosine_is_handed_out(on_host, loss, regime):
    n, d, c, kept = REGIMES[regime]
    on_host.keep_cosines(kept)
    z, w, y, state = sample(loss, n, d, c)
    rows = on_host.margin_loss(z, w, y, state, [on_host.losses().index(loss), 64.0, 4.0, *OTHERS[loss]], True)[2]
    unit = torch.nn.functional.normalize
    cosine = unit(z.double()) @ unit(w.double()).T
    own = torch.nn.functional.one_hot(y, c).bool()
    torch.testing.assert_close(rows[:, 1].double(), cosine[own], rtol=0, atol=1e-6)
    torch.testing.assert_close(rows[:, 2].double(), cosine.masked_fill(own, -2).amax(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(
    "types", [("float32", "bfloat16"), ("float32", "float16"), ("float16", "bfloat16"), ("bfloat16", "float16")]
)
def test_prototypes_of_another_16_bit_type(on_host, types, regime):
    n, d, c, kept = REGIMES[regime]
    on_host.keep_cosines(kept)
    of_z, of_w = (getattr(torch, name) for name in types)
    batch = sample("cosface", n, d, c, dtype=of_z, weight_dtype=of_w)
    got, truth = run(on_host, "cosface", *batch), expected("cosface", *batch)
    for actual, wanted in zip(got, truth, strict=True):
        assert not wanted.numel() or error(actual, wanted) <= 1e-2
    assert got[2].dtype == of_z and got[3].dtype == of_w


@pytest.mark.parametrize("classes", [5, 70])
@pytest.mark.parametrize("loss", ["adaface", "curricularface"])
def test_several_blocks_sum_the_loss_and_the_state(on_host, loss, classes):
    """More rows than the threads of a block, of which the last to come adds up what all have left, in order."""
    on_host.keep_cosines(1 << 23)
    batch = sample(loss, 300, 8, classes)
    got, truth = run(on_host, loss, *batch), expected(loss, *batch)
    for actual, wanted in zip(got, truth, strict=True):
        assert error(actual, wanted) <= 1e-5
    assert all(torch.equal(a, b) for a, b in zip(got, run(on_host, loss, *batch), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flat_samples_beside_a_steep_one_keep_their_digits(on_host, dtype):
    """One sample lies on another class's prototype; the others are right, their gradients 10^5 times smaller. They alone
    move the prototypes that are nobody's label."""
    on_host.keep_cosines(1 << 23)
    g = torch.Generator().manual_seed(0)
    w = torch.randn(96, 64, generator=g)
    y = torch.arange(24)
    z = w[y] + 0.3 * torch.randn(24, 64, generator=g)
    z[0] = 3 * w[1]
    batch = z.to(dtype), w, y, torch.empty(0)
    dw, truth = (
        make("cosface", *batch, scale=20.0, margin=0.0)[3][24:].double() for make in (partial(run, on_host), expected)
    )
    rows = (dw - truth).norm(dim=1) / truth.norm(dim=1)
    assert rows.median() < 2e-3 and rows.max() < 1e-2


def test_the_losses_are_the_same_on_both_devices(on_host):
    assert on_host.losses() == EXTENSION.losses()


@pytest.mark.parametrize("number", [-1, len(EXTENSION.losses())])
def test_an_unknown_loss_number_is_an_error_on_the_host(on_host, number):
    z, w, y, state = sample("arcface", 5, 8, 4)
    with pytest.raises(ValueError, match=f"there is no loss number {number}"):
        on_host.margin_loss(z, w, y, state, [number, 64.0, 0.5, 0.0], True)


def test_a_stateless_loss_takes_no_kernel_for_its_state(on_host):
    on_host.keep_cosines(1 << 23)
    counts = {}
    for loss in ("arcface", "adaface"):
        z, w, y, state = sample(loss, 5, 8, 70)
        before = on_host.launches()
        on_host.margin_loss(z, w, y, state, [on_host.losses().index(loss), 64.0, 0.5, *OTHERS[loss]], True)
        counts[loss] = on_host.launches() - before
    assert counts == {"arcface": 5, "adaface": 6}  # normalise twice, targets, sums, loss; and the state
