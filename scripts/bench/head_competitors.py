"""ArcFace as others compute it: what scripts/bench/head.py times the compiled head against."""

import importlib
import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from cifarnet.losses import kernels
from cifarnet.losses.margin_loss import margin_loss
from cifarnet.losses.objectives.base import Kernel
from cifarnet.losses.options import margin_options
from scripts.bench.head_timing import MARGIN, SCALE

OPTIONS = margin_options("arcface", scale=SCALE, margin=MARGIN)
CALL = Kernel("arcface", SCALE, MARGIN, [0.0])
KEPT = 1 << 27  # cosines, 512 MB in fp32
CHUNK = 1 << 23  # cosines of a chunk of classes on CUDA, as csrc/cuda_platform.cuh has it
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def reference(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The pure-torch head, which torch.compile also gets. It computes in fp32, under autocast too."""
    return margin_loss(z, w, y, OPTIONS, {"state": no_state(z.device)}, True)[0]


@cache
def no_state(device: torch.device) -> Tensor:
    """ArcFace's state, made once, outside the time that is taken."""
    return torch.empty(0, device=device)


def ours(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return kernels.margin_loss(z, w, y, CALL, no_state(z.device), True)[0]


def ours_kept(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """The same with more cosines kept for backward: memory for a matrix product."""
    extension = importlib.import_module("cifarnet._C")
    most = extension.kept_cosines()
    extension.keep_cosines(KEPT)
    try:
        return ours(z, w, y)
    finally:
        extension.keep_cosines(most)


def in_chunks(cosines: int) -> Loss:
    """The same on CUDA with so many cosines to a chunk of classes, in forward and in backward."""

    def loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        importlib.import_module("cifarnet._C").chunk_cosines(cosines)
        return ours(z, w, y)

    return loss


def textbook(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """As most code, the report's classes among it: acos, one-hot, cross-entropy over N x C logits."""
    cosine = F.linear(F.normalize(z.float()), F.normalize(w)).clamp(-1 + 1e-7, 1 - 1e-7)
    own = F.one_hot(y, len(w)).to(cosine.dtype)
    theta = torch.acos(cosine)
    within = (theta + MARGIN < math.pi).to(cosine.dtype)
    shifted = within * torch.cos(theta + MARGIN) + (1 - within) * (cosine - MARGIN * math.sin(MARGIN))
    return F.cross_entropy(SCALE * (own * shifted + (1 - own) * cosine), y)


def lean(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """With as few passes over N x C numbers as torch allows: only the targets are shifted. Under autocast cosines are bf16."""
    cosine = F.linear(F.normalize(z.float()), F.normalize(w))
    own = cosine.gather(1, y[:, None]).float().clamp(-1 + 1e-7, 1 - 1e-7)
    theta = torch.acos(own)
    shifted = torch.where(theta + MARGIN < math.pi, torch.cos(theta + MARGIN), own - MARGIN * math.sin(MARGIN))
    return F.cross_entropy(SCALE * cosine.scatter(1, y[:, None], shifted.to(cosine.dtype)), y)


def in_bf16(loss: Loss) -> Loss:
    """The same with bf16 products and cosines."""

    def inside(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16):
            return loss(z, w, y)

    return inside


def insightface(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """ArcFace as insightface's recognition/arcface_torch: the target is shifted without gradient, so that its gradient is
    the identity's and not sin(theta + m) / sin(theta)."""
    cosine = F.linear(F.normalize(z.float()), F.normalize(w)).clamp(-1, 1)
    rows = torch.arange(len(z), device=z.device)
    with torch.no_grad():
        target = cosine[rows, y]
        sine = (1 - target * target).sqrt()
        shifted = torch.where(
            target > math.cos(math.pi - MARGIN),
            target * math.cos(MARGIN) - sine * math.sin(MARGIN),
            target - math.sin(math.pi - MARGIN) * MARGIN,
        )
    logits = cosine.index_put((rows, y), cosine[rows, y] + (shifted - target))
    return F.cross_entropy(SCALE * logits, y)


def metric_learning() -> Loss | None:
    """pytorch-metric-learning's ArcFaceLoss (margin in degrees, its weight [D, C]), where it is installed."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        return None
    heads: dict[Tensor, torch.nn.Module] = {}

    def loss(z: Tensor, w: Tensor, y: Tensor) -> Tensor:
        if w not in heads:
            heads.clear()
            head = ArcFaceLoss(len(w), w.shape[1], margin=math.degrees(MARGIN), scale=SCALE).to(w.device)
            del head.W
            heads[w] = head
        heads[w].W = w.T
        return heads[w](z.float(), y)

    return loss


class Peer(nn.Module):
    """A loss with the prototypes as its parameter: torch.compile need not copy a parameter into its graphs."""

    def __init__(self, loss: Loss, weight: nn.Parameter) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.loss(z, self.weight, y)


@dataclass
class Competitor:
    """How a loss is computed.

    Args:
        group: what --only chooses by.
        loss: of features and labels.
        tf32: fp32 products may round to TF32.
        graph: forward and backward are captured in a CUDA graph.
    """

    group: str
    loss: Callable[[Tensor, Tensor], Tensor]
    tf32: bool = False
    graph: bool = False


GROUPS = ("ours", "triton", "floor", "eager", "compile", "others")


def ways(device: str, dtype: torch.dtype) -> dict[str, tuple[Loss, bool]]:
    """The best of pure torch, by what its name ends in: with the products that a user would choose here."""
    if device == "cpu":
        return {"": (reference, False)} | ({", autocast": (in_bf16(lean), False)} if dtype != torch.float32 else {})
    first = {"": (reference, False)} if dtype == torch.float32 else {", autocast": (in_bf16(lean), False)}
    return first | {", TF32": (reference, True)}


def in_triton(weight: nn.Parameter) -> dict[str, Competitor]:
    """scripts/bench/head_triton.py, with two sizes of a tile."""
    if find_spec("triton") is None:
        return {}
    from scripts.bench.head_triton import ArcFace, Tile

    found = {}
    for tile in (Tile(), Tile(classes=256)):
        loss = Peer(lambda z, w, y, tile=tile: ArcFace.apply(z, w, y, tile), weight)
        name = f"triton, {tile.samples} x {tile.classes}"
        found[name] = Competitor("triton", loss)
        if len(weight) <= 1_000_000:
            found[f"{name}, CUDA graph"] = Competitor("triton", loss, graph=True)
    return found


def competitors(
    weight: nn.Parameter, dtype: torch.dtype, groups: Collection[str] = GROUPS, compiler: str = "inductor"
) -> dict[str, Competitor]:
    """Those of `groups` by name; those that cannot run with so many classes are left out."""
    found = all_of(weight, dtype, compiler if "compile" in groups else None)
    return {name: competitor for name, competitor in found.items() if competitor.group in groups}


def all_of(weight: nn.Parameter, dtype: torch.dtype, compiler: str | None) -> dict[str, Competitor]:
    """All groups; without a compiler none is compiled: torch's own takes seconds to be loaded."""
    device, classes = weight.device.type, len(weight)
    many = device == "cuda" and classes > 10_000
    mine = Peer(in_chunks(CHUNK) if many else ours, weight)
    found = {"cifarnet": Competitor("ours", mine)}
    if device == "cuda":
        if classes <= 1_000_000:  # the graph keeps gradients of its own
            found["cifarnet, CUDA graph"] = Competitor("ours", mine, graph=True)
        if many and classes <= KEPT // 1024:
            found["cifarnet, cosines kept"] = Competitor("ours", Peer(ours_kept, weight))
        if many and dtype != torch.float32:
            found |= {
                f"cifarnet, chunks of {times} times": Competitor("ours", Peer(in_chunks(times * CHUNK), weight))
                for times in (2, 4, 8)
            }
        if dtype == torch.float32:
            found["cifarnet, TF32"] = Competitor("ours", mine, tf32=True)
        else:
            found |= in_triton(weight)
    if classes > 1_000_000:
        return found
    for ending, (loss, tf32) in ways(device, dtype).items():
        found[f"eager{ending}"] = Competitor("eager", Peer(loss, weight), tf32)
        if compiler and (classes <= 1000 or device == "cuda"):
            compiled = torch.compile(Peer(loss, weight), dynamic=False, backend=compiler)
            found[f"torch.compile{ending}"] = Competitor("compile", compiled, tf32)
        if compiler and device == "cuda":
            compiled = torch.compile(Peer(loss, weight), dynamic=False, mode="reduce-overhead")
            found[f"torch.compile, CUDA graph{ending}"] = Competitor("compile", compiled, tf32)
    if classes <= 100_000:
        others = {"textbook": textbook, "textbook, autocast": in_bf16(textbook), "insightface": insightface}
        found |= {name: Competitor("others", Peer(loss, weight)) for name, loss in others.items()}
    peer = metric_learning() if classes <= 1000 else None
    if peer:
        found["metric-learning"] = Competitor("others", Peer(peer, weight))
    return found


def floor(z: Tensor, w: Tensor) -> None:
    """The three products that forward and backward cannot do without, a million classes at a time."""
    for part in w.split(1 << 20):
        part = part.to(z.dtype)
        cosine = z @ part.T
        cosine @ part, cosine.T @ z
