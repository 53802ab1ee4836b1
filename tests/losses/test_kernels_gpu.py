"""The CUDA kernels on a GPU: what the CPU cannot show. Skipped where there is none."""

import pytest
import torch
from head_backends import GPU
from margin_reference import ORIGINAL
from test_kernels import check, compiled, error, expected, restored, sample

from cifarnet.losses import MarginHead, kernels
from cifarnet.losses.sharded.head import ShardedMarginHead

pytestmark = pytest.mark.skipif(not GPU, reason="no GPU here, or the extension is built without CUDA")
assert restored  # a fixture, used automatically here too


@pytest.mark.parametrize("classes_size", [(20, 512), (10, 1024), (24, 512), (10, 2048), (64, 800)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_around_the_default_of_shared_memory(classes_size, dtype):
    c, d = classes_size
    check("arcface", sample("arcface", 40, d, c, "cuda", dtype), 1e-5 if dtype == torch.float32 else 1e-2)


def test_every_size_from_8000_to_13000_numbers_of_prototypes():
    for c in (10, 16, 20, 24, 33, 50, 64):
        for d in range(8000 // c, 13000 // c + 1, 16):
            check("cosface", sample("cosface", 16, d, c, "cuda"), 1e-5)


def launches(run):
    """Kernels that it starts: what the profiler has of the device, and not of the host's calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    started = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum("Memcpy" not in name and "Memset" not in name for name in started)


def test_resnet50_on_ten_classes_is_few_classes():
    """C = 10, D = 2048: 80 KB of prototypes. Three launches of ours, and torch's for the gradient of the mean."""
    props = torch.cuda.get_device_properties(0)
    if props.shared_memory_per_block_optin < 100_000:
        pytest.skip("this GPU has not so much shared memory")
    head = MarginHead(2048, 10, "adaface", backend="cuda").cuda()
    z, y = torch.randn(512, 2048, device="cuda", requires_grad=True), torch.randint(10, (512,), device="cuda")
    run = lambda: torch.autograd.grad(head.eval()(z, y), (z, head.weight))  # noqa: E731
    run()
    assert launches(run) <= 6


@pytest.mark.parametrize("classes", [10, 1000, 30_000])
@pytest.mark.parametrize("loss", ORIGINAL)
@pytest.mark.parametrize("kind", ["cuda", "torch", "spread"])
def test_a_step_never_waits_for_the_gpu(kind, loss, classes):
    made = ShardedMarginHead(64, classes, loss) if kind == "spread" else MarginHead(64, classes, loss, backend=kind)
    head = made.cuda()
    z, y = torch.randn(128, 64, device="cuda", requires_grad=True), torch.randint(classes, (128,), device="cuda")
    head.loss_and_correct(z, y)[0].backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value, hits = head.loss_and_correct(z, y)
        value.backward()
        hits.sum()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_fp16_products_sum_in_fp32():
    """64 x 128 cosines of 32,768 numbers each, which cuBLAS splits along K; the user's setting is left as it was."""
    for allowed in (True, False):
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = allowed
        z, w, y, state = sample("cosface", 64, 32_768, 128, "cuda", torch.float16)
        got, truth = compiled("cosface", z, w, y, state), expected("cosface", z, w, y, state)
        assert all(error(a, b) <= 3e-3 for a, b in zip(got, truth, strict=True) if b.numel())
        assert torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction == allowed
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True


def test_16_bit_prototypes_are_not_copied():
    z = torch.randn(64, 128, device="cuda", requires_grad=True)
    w = torch.randn(400_000, 128, device="cuda").bfloat16().requires_grad_()
    y, state = torch.randint(400_000, (64,), device="cuda"), torch.empty(0, device="cuda")
    compiled("cosface", z, w, y, state)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compiled("cosface", z, w, y, state)
    size = w.numel() * 2
    # dW; of a chunk, a third of the classes, fp32 prototypes, their sums and the cosines: 2.6. A copy in fp32 would be 2 more.
    assert torch.cuda.max_memory_allocated() - before < 3.2 * size


def test_few_samples_of_very_many_classes_take_no_copy_of_them():
    """An epoch's last batch: a chunk is as small as its prototypes ask."""
    w = torch.randn(1_000_000, 128, device="cuda").requires_grad_()
    z, y = torch.randn(2, 128, device="cuda", requires_grad=True), torch.tensor([3, 999_999], device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compiled("cosface", z, w, y, torch.empty(0, device="cuda"))
    size = w.numel() * 4
    assert torch.cuda.max_memory_allocated() - before < 1.7 * size  # dW, and 2^18 prototypes with their sums; else 3


def test_a_user_who_lets_fp16_be_summed_in_fp16_is_left_alone():
    before = torch.backends.cuda.matmul.allow_fp16_accumulation
    torch.backends.cuda.matmul.allow_fp16_accumulation = True
    try:
        for shape in ((64, 4096, 128), (64, 64, 200_000)):  # cosines that are kept, and chunks of them
            n, d, c = shape
            check("cosface", sample("cosface", n, d, c, "cuda", torch.float16), 1e-2)
        assert torch.backends.cuda.matmul.allow_fp16_accumulation
    finally:
        torch.backends.cuda.matmul.allow_fp16_accumulation = before


@pytest.mark.parametrize("shape", [(20_000, 32, 10), (20_000, 16, 100)])
@pytest.mark.parametrize("loss", ["adaface", "curricularface"])
def test_many_rows(loss, shape):
    n, d, c = shape
    check(loss, sample(loss, n, d, c, "cuda"), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hundred_thousand_classes(dtype):
    batch = sample("arcface", 64, 64, 100_000, "cuda", dtype)
    check("arcface", batch, 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("classes", [10, 1000, 20_000])
@pytest.mark.parametrize("loss", ["arcface", "adaface"])
def test_graph_capture(loss, classes):
    """A captured step, replayed on other features, gives what it gives outside the graph, bit for bit."""
    z, w, y, state = sample(loss, 64, 32, classes, "cuda")
    other = sample(loss, 64, 32, classes, "cuda", seed=1)[0]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            compiled(loss, z, w, y, state)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        inside = compiled(loss, z, w, y, state)
    z.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(inside, compiled(loss, other, w, y, state), strict=True))


@pytest.mark.parametrize("loss", ["arcface", "adaface"])
def test_torch_compile(loss):
    torch.manual_seed(0)
    net, head = torch.nn.Linear(12, 32).cuda(), MarginHead(32, 10, loss, backend="cuda").cuda()
    plain = MarginHead(32, 10, loss, backend="torch").cuda()
    plain.load_state_dict(head.state_dict())
    x, y = torch.randn(64, 12, device="cuda"), torch.randint(10, (64,), device="cuda")
    step = torch.compile(lambda x, y: head(net(x), y), fullgraph=True)
    before = kernels.calls()["cuda"]
    for _ in range(2):
        torch.testing.assert_close(step(x, y), plain(net(x), y), rtol=1e-5, atol=1e-5)
    assert kernels.calls()["cuda"] == before + 2


def test_a_gradient_scaler_backs_off():
    scales = {}
    for backend in ("cuda", "torch"):
        torch.manual_seed(0)
        net, head = torch.nn.Linear(32, 64, bias=False).cuda(), MarginHead(64, 10, backend=backend).cuda()
        torch.nn.init.normal_(net.weight, std=0.01)
        optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=1e-6)
        scaler = torch.amp.GradScaler("cuda")
        x, y = torch.randn(4, 32, device="cuda") * 0.05, torch.randint(10, (4,), device="cuda")
        for _ in range(30):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = head(net(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        scales[backend] = scaler.get_scale()
        assert net.weight.grad.isfinite().all()
    assert scales["cuda"] == scales["torch"] < 65536


def test_labels_of_many_samples_are_sorted():
    """Up to 2,048 labels are ordered by counting, more by torch's sort."""
    for n in (2047, 2049):
        check("cosface", sample("cosface", n, 16, 100, "cuda"), 1e-5)


def test_a_label_out_of_range_leaves_the_process_to_say_so():
    """A device-side assertion ends the context: it is tried in a process of its own."""
    import subprocess
    import sys

    code = (
        "import torch; from cifarnet.losses import MarginHead\n"
        "h = MarginHead(8, 10, backend='cuda').cuda(); h(torch.randn(4, 8).cuda(), torch.tensor([0, 1, 10, 2]).cuda())\n"
        "torch.cuda.synchronize()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0 and "device-side assert" in result.stderr
