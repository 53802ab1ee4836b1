"""ArcFace for many classes with Triton: the exponentials are taken inside the products, so that no cosine is written to memory.

The candidate beside csrc's chunks on a Hopper GPU (16-bit features, fp32 prototypes). Without a GPU its kernels run in Triton's
interpreter, and compile for sm_90; see tests/scripts/test_head_triton.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from scripts.bench.head_timing import MARGIN, SCALE

POWER = SCALE / math.log(2)  # exp(s x) = 2^(POWER x)
BOOST = 8192.0  # shares are at most 1; fp16 holds them times 2^13, down to 1e-11
COSINES = 1 << 24  # of a chunk: their shares, 32 MB in fp16, stay in the L2 cache
KEPT = 1 << 28  # numbers of fp16 unit prototypes that are kept for backward, 0.5 GB; more are made again
ROWS = 16  # of a block of the kernels that go along rows


@triton.jit
def unit_rows(x, unit, norms, rows, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """unit [rows, D] fp16 and norms [rows] of x [rows, D]; WIDTH is D's next power of two."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    inside = (r[:, None] < rows) & (d[None, :] < D)
    at = r[:, None] * D + d[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    norm = tl.sqrt(tl.sum(value * value, 1))
    tl.store(unit + at, (value / tl.maximum(norm, 1e-31)[:, None]).to(tl.float16), mask=inside)
    tl.store(norms + r, norm, mask=r < rows)


@triton.jit
def cosines_of_tile(
    z, w, labels, samples, count, first, D: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr
):
    """A block's cosines [BN, BC], which of them are of other classes than the sample's, and its samples [BN]."""
    start_n, start_c = tl.program_id(0) * BN, tl.program_id(1) * BC
    n, c = start_n + tl.arange(0, BN), start_c + tl.arange(0, BC)
    cosines = tl.zeros((BN, BC), tl.float32)
    for k in range(0, D, BK):
        cosines = tl.dot(z.load([start_n, k]), w.load([start_c, k]).T, cosines)
    label = tl.load(labels + n, mask=n < samples, other=-1)
    return cosines, (label[:, None] != first + c[None, :]) & (c[None, :] < count), n


@triton.jit
def sum_exponentials(
    z, w, labels, peaks, rests, samples, count, first, power,
    D: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Of each sample and tile of classes the largest other cosine and the sum of exp(s (cosine - it)): two [tiles, samples]."""
    cosines, other, n = cosines_of_tile(z, w, labels, samples, count, first, D, BN, BC, BK)
    peak = tl.max(tl.where(other, cosines, -2.0), 1)
    rest = tl.sum(tl.where(other, tl.exp2((cosines - peak[:, None]) * power), 0.0), 1)
    at = tl.program_id(1) * samples + n
    tl.store(peaks + at, peak, mask=n < samples)
    tl.store(rests + at, rest, mask=n < samples)


@triton.jit
def gradient_shares(
    z, w, shares, labels, peaks, samples, count, first, power, boost,
    D: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """shares [samples, classes] = boost exp(s (cosine - peak)), 0 for the label and from `count` on."""
    cosines, other, n = cosines_of_tile(z, w, labels, samples, count, first, D, BN, BC, BK)
    peak = tl.load(peaks + n, mask=n < samples, other=1.0)
    share = tl.where(other, tl.exp2(tl.minimum((cosines - peak[:, None]) * power, 0.0)), 0.0)
    shares.store([tl.program_id(0) * BN, tl.program_id(1) * BC], (share * boost).to(tl.float16))


@triton.jit
def project_prototypes(
    dw, sums, unit, norms, features, order, sorted_labels, begins, pulls, scale, count, first,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dW [count, D] from the product of shares and features (times scale) and the samples of each class."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    inside = (row[:, None] < count) & (d[None, :] < D)
    at = row[:, None] * D + d[None, :]
    gradient = tl.load(sums + at, mask=inside, other=0.0) * tl.load(scale)
    begin, end = tl.load(begins + tl.program_id(0)), tl.load(begins + tl.program_id(0) + 1)
    for place in range(begin, end):  # the samples of these classes, by label
        sample = tl.load(order + place)
        mine = (tl.load(sorted_labels + place) == first + row).to(tl.float32)
        pull = tl.load(pulls + sample) * mine
        gradient += pull[:, None] * tl.load(features + sample * D + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    direction = tl.load(unit + at, mask=inside, other=0.0).to(tl.float32)
    norm = tl.load(norms + row, mask=row < count, other=1.0)
    inverse = tl.where(norm <= 1e-31, 0.0, 1.0 / norm)
    outward = tl.sum(gradient * direction, 1)
    tl.store(dw + at, (gradient - outward[:, None] * direction) * inverse[:, None], mask=inside)


@dataclass(frozen=True)
class Tile:
    """Samples, classes and numbers of a step of the product; how many loads are under way; the warps of a block."""

    samples: int = 128
    classes: int = 128
    numbers: int = 64
    stages: int = 3
    warps: int = 8

    def of(self, rows: Tensor, classes: bool) -> TensorDescriptor:
        return TensorDescriptor.from_tensor(rows, [self.classes if classes else self.samples, self.numbers])

    @property
    def options(self) -> dict[str, Any]:
        sizes = {"BN": self.samples, "BC": self.classes, "BK": self.numbers}
        return sizes | {"num_stages": self.stages, "num_warps": self.warps}


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b of fp16, in fp32."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def normalized(x: Tensor, unit: Tensor, norms: Tensor) -> None:
    rows, d = x.shape
    unit_rows[(triton.cdiv(rows, ROWS),)](x, unit, norms, rows, D=d, WIDTH=triton.next_power_of_2(d), ROWS=ROWS)


class Prototypes:
    """The chunks of W as fp16 unit vectors: first class, how many, unit [count rounded up, D], norms. Kept where they are few."""

    def __init__(self, weight: Tensor, samples: int) -> None:
        self.weight = weight
        self.chunk = min(-(-len(weight) // 128) * 128, max(1024, COSINES // samples // 128 * 128))
        rows = -(-len(weight) // 128) * 128 if weight.numel() <= KEPT else self.chunk
        self.unit = torch.zeros(rows, weight.shape[1], dtype=torch.float16, device=weight.device)
        self.norms = torch.empty(rows, device=weight.device)
        self.kept = rows >= len(weight)
        if self.kept:
            normalized(weight, self.unit, self.norms)

    def tiles(self, classes: int) -> int:
        """Tiles of so many classes in all chunks."""
        whole, rest = divmod(len(self.weight), self.chunk)
        return int(whole * triton.cdiv(self.chunk, classes) + triton.cdiv(rest, classes))

    def chunks(self) -> Any:
        for first in range(0, len(self.weight), self.chunk):
            part = self.weight[first : first + self.chunk]
            rows = (
                slice(first, first + -(-len(part) // 128) * 128) if self.kept else slice(0, -(-len(part) // 128) * 128)
            )
            if not self.kept:
                normalized(part, self.unit, self.norms)
            yield first, len(part), self.unit[rows], self.norms[rows]


class ArcFace(torch.autograd.Function):
    """Mean loss of features [N, D] in 16 bits, prototypes [C, D] in fp32 and labels [N]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, w: Tensor, y: Tensor, tile: Tile) -> Tensor:
        n, d = z.shape
        unit, norms = torch.empty(n, d, dtype=torch.float16, device=z.device), torch.empty(n, device=z.device)
        normalized(z, unit, norms)
        prototypes, of_z = Prototypes(w, n), tile.of(unit, False)
        tiles_before = 0  # few launches a chunk: Python is slower than the GPU
        peaks, rests = torch.empty(2, prototypes.tiles(tile.classes), n, device=z.device)
        for first, count, part, _ in prototypes.chunks():
            tiles = triton.cdiv(count, tile.classes)
            into = slice(tiles_before, tiles_before + tiles)
            sum_exponentials[(triton.cdiv(n, tile.samples), tiles)](
                of_z, tile.of(part, True), y, peaks[into], rests[into], n, count, first, POWER, D=d, **tile.options
            )
            tiles_before += tiles
        peak = peaks.amax(0)
        rest = (rests * torch.exp2((peaks - peak) * POWER)).sum(0)
        own = F.normalize(w[y])
        target = (F.normalize(z.float()) * own).sum(1).clamp(-1 + 1e-7, 1 - 1e-7)
        sine = (1 - target * target).sqrt()
        turned = target > -math.cos(MARGIN)
        psi = torch.where(
            turned, target * math.cos(MARGIN) - sine * math.sin(MARGIN), target - MARGIN * math.sin(MARGIN)
        )
        slope = torch.where(turned, math.cos(MARGIN) + target * math.sin(MARGIN) / sine, 1.0)
        above = SCALE * (peak - psi) + rest.log()  # log S - s psi
        ctx.save_for_backward(z, w, y, unit, norms, own, slope, peak, rest, above)
        ctx.prototypes, ctx.tile = prototypes, tile
        return F.softplus(above).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        z, w, y, unit, norms, own, slope, peak, rest, above = ctx.saved_tensors
        n, d = z.shape
        tile, prototypes = ctx.tile, ctx.prototypes
        wrong = torch.sigmoid(above) * (SCALE / n * grads[0])  # s (1 - p_y)
        pull, strength = -wrong * slope, wrong / rest  # of the target's cosine; of each share
        most = strength.amax().clamp_min(1e-38)
        scale, scaled = most / BOOST, (unit * (strength / most)[:, None]).half()
        sorted_labels, order = y.sort(stable=True)
        h, dw = torch.zeros(n, d, device=z.device), torch.empty_like(w)
        row_tiles, of_z = triton.cdiv(n, tile.samples), tile.of(unit, False)
        # Where the samples of every block of ROWS classes begin in the order of their labels; a chunk has whole blocks.
        begins = torch.searchsorted(sorted_labels, ROWS * torch.arange(triton.cdiv(len(w), ROWS) + 1, device=z.device))
        for first, count, part, of_part in prototypes.chunks():
            shares = torch.empty(n, len(part), dtype=torch.float16, device=z.device)
            into = TensorDescriptor.from_tensor(shares, [tile.samples, tile.classes])
            gradient_shares[(row_tiles, triton.cdiv(len(part), tile.classes))](
                of_z, tile.of(part, True), into, y, peak, n, count, first, POWER, BOOST, D=d, **tile.options
            )
            h += product(shares, part)
            sums = product(shares.T, scaled)
            blocks = triton.cdiv(count, ROWS)
            project_prototypes[(blocks,)](
                dw[first : first + count], sums, part, of_part, unit, order, sorted_labels, begins[first // ROWS :], pull, scale,
                count, first,
                D=d, WIDTH=triton.next_power_of_2(d), ROWS=ROWS,
            )  # fmt: skip
        gradient = h * (strength / BOOST)[:, None] + pull[:, None] * own
        direction = F.normalize(z.float())
        dz = (gradient - (gradient * direction).sum(1, keepdim=True) * direction) / norms[:, None]
        return dz.to(z.dtype), dw, None, None
