"""subcenter-arcface's CPU kernels: ArcFace over all sub-centres, of which the nearest of each class stays; against pure torch in float64."""

import copy
import math

import pytest
import torch
from test_more_kernels import relative, step

from cifarnet.core.errors import Refused
from cifarnet.losses import MarginHead, kernels

EXTENSION = pytest.importorskip("cifarnet._C", reason="the extension is not built")
kernels.resolve("cpu", "cpu")


@pytest.fixture(autouse=True)
def restored():
    """Leaves the extension's settings as they were."""
    kept = EXTENSION.kept_cosines()
    yield
    EXTENSION.keep_cosines(kept)
    EXTENSION.choose_instruction_set(EXTENSION.instruction_sets()[0])


def in_double(head):
    """The same head in pure torch and float64."""
    truth = copy.deepcopy(head).double()
    truth.backend = "torch"
    return truth


# N, C, K, the most cosines that are kept: the last two in several chunks, which end where a class does
CENTRES = [(40, 21, 3, 1 << 23), (40, 6, 10, 1 << 23), (40, 30, 7, 1 << 23), (1100, 300, 3, 0), (1100, 150, 7, 0)]


@pytest.mark.parametrize(("samples", "classes", "centres", "kept"), CENTRES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradients(samples, classes, centres, kept, dtype):
    torch.manual_seed(4)
    head = MarginHead(12, classes, "subcenter-arcface", backend="cpu", subcenters=centres)
    truth = in_double(head)
    y = torch.randint(classes, (samples,))
    z = (torch.randn(samples, 12) + 2 * head.weight.detach()[y, y % centres]).to(dtype)
    theirs = step(truth, z.double(), y)
    EXTENSION.keep_cosines(kept)
    for name in EXTENSION.instruction_sets():
        EXTENSION.choose_instruction_set(name)
        ours = step(head, z, y)
        assert relative(ours[0], theirs[0]) < 1e-5 and torch.equal(ours[1], theirs[1])
        assert relative(ours[2], theirs[2]) < (5e-5 if dtype == torch.float32 else 1e-2)
        assert relative(ours[3], theirs[3]) < 5e-5
        assert all(torch.equal(one, two) for one, two in zip(ours, step(head, z, y), strict=True))


@pytest.mark.parametrize("kept", [0, 1 << 23])
@pytest.mark.parametrize("classes", [6, 90])
@pytest.mark.parametrize("scale", [1e-8, 1e-5, 1e-2, 1000.0])
def test_any_scale(scale, classes, kept):
    """What is no negative has the exponential 0 however small the scale is."""
    torch.manual_seed(5)
    head = MarginHead(12, classes, "subcenter-arcface", backend="cpu", scale=scale)
    truth = in_double(head)
    z, y = torch.randn(9, 12), torch.arange(9) % classes
    EXTENSION.keep_cosines(kept)
    for ours, theirs in zip(step(head, z, y), step(truth, z.double(), y), strict=True):
        assert ours.dtype == torch.bool or relative(ours, theirs) < 5e-5


def test_the_nearest_subcentre_is_found_before_cosines_are_clamped():
    """Two of another class's sub-centres lie within the clamp's 4.5e-4 of the features: the nearer one learns."""
    torch.manual_seed(2)
    q = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    head = MarginHead(8, 3, "subcenter-arcface", backend="cpu")
    with torch.no_grad():
        for centre, angle, across in ((0, 6e-4, 1), (2, 1.5e-4, 3)):
            head.weight[1, centre] = math.cos(angle) * q[0] + math.sin(angle) * q[across]
    z, y = (3 * q[0]).expand(4, 8).float(), torch.tensor([0, 0, 2, 1])
    truth = in_double(head)
    *_, dw = step(head, z, y)
    *_, expected = step(truth, z.double(), y)
    assert not dw[1, 0].any() and not expected[1, 0].any() and dw[1, 2].any()
    assert relative(dw, expected) < 1e-3  # at so small an angle a cosine is rounding's


def test_of_equal_subcentres_the_first_learns():
    head = MarginHead(16, 8, "subcenter-arcface", backend="cpu")
    with torch.no_grad():
        head.weight[:, 1] = head.weight[:, 0]
    y = torch.arange(16) % 8
    z = torch.randn(16, 16) + 2 * head.weight.detach()[y, 0]
    *_, dw = step(head, z, y)
    *_, expected = step(in_double(head), z.double(), y)
    assert dw[:, 0].any() and not dw[:, 1].any() and not expected[:, 1].any()
    assert relative(dw, expected) < 5e-5


def test_one_subcentre_is_arcface():
    head = MarginHead(16, 8, "subcenter-arcface", backend="cpu", subcenters=1)
    plain = MarginHead(16, 8, "arcface", backend="cpu")
    with torch.no_grad():
        plain.weight.copy_(head.weight[:, 0])
    z, y = torch.randn(6, 16), torch.arange(6)
    for ours, theirs in zip(step(head, z, y), step(plain, z, y), strict=True):
        assert torch.equal(ours.reshape(theirs.shape), theirs)


def test_operator_of_the_nearest_subcentre():
    nearest = torch.ops.cifarnet.nearest_centres
    torch.manual_seed(0)
    z, w, y = torch.randn(50, 12).bfloat16(), torch.randn(9, 4, 12), torch.randint(9, (50,))
    cosine = torch.einsum("nd,nkd->nk", z.double(), torch.nn.functional.normalize(w.double(), dim=2)[y])
    assert torch.equal(nearest(z, w, y), 4 * y + cosine.argmax(dim=1))
    torch.library.opcheck(nearest, (z, w, y))
    w[2, 3] = torch.nan
    assert (nearest(z, w, y)[y == 2] == 11).all()
    with pytest.raises(IndexError, match="label 9 of sample 1 is out of range: there are 9 classes"):
        nearest(z, w, torch.tensor([0, 9] * 25))
    with pytest.raises(ValueError, match=r"sub-centres are \[at least 2 classes, 1 to 10, D\], not \[4, 12\]"):
        nearest(z, w[0], y)


def test_where_they_cannot_be():
    z, w, y = torch.randn(4, 8), torch.randn(5, 3, 8), torch.arange(4)
    for loss, words in (("curricularface", "not with curricularface"), ("adacos", "not with adacos")):
        options, state = MarginHead(8, 5, loss).options, MarginHead(8, 5, loss).state
        call = [kernels.loss_number(loss), options.scale, options.margin, *options.others]
        with pytest.raises(ValueError, match=words):
            torch.ops.cifarnet.margin_loss(z, w, y, state, call, True)
    with pytest.raises(Refused, match="subcenter-arcface has no cuda kernels, pure torch runs it; use `backend=torch`"):
        kernels.resolve("cuda", "cuda", loss="subcenter-arcface")
    assert kernels.resolve("auto", "cuda", loss="subcenter-arcface") == "torch"
    with pytest.raises(Refused, match="vs has no compiled kernels"):
        kernels.resolve("cpu", "cpu", loss="vs")
