"""Synthetic identities: features of as many classes as asked for, made on the fly, to try a head without a face data set.

The generator: class j has a prototype p_j, uniform on the unit sphere of R^D. A sample of it lies at the angle t from p_j, t
normal with mean 0 and standard deviation `spread`, in a direction uniform around p_j, and has length sqrt(D):

    x = sqrt(D) (cos(t) p_j + sin(t) u),   u uniform among the unit vectors perpendicular to p_j

Every number is a hash of (seed, class or sample, dimension), so that nothing but the labels is stored, a sample is the same
in any batch, and any device makes it (to the rounding of log, cos and sin).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifarnet.core.class_names import Numbers
from cifarnet.core.config import SYNTHETIC, TrainConfig
from cifarnet.core.errors import Refused, plural
from cifarnet.data.dataset import Dataset
from cifarnet.data.request import Request

TRAIN_SAMPLES, TEST_SAMPLES = 10, 2  # of each class
PROTOTYPE, DIRECTION, ANGLE = 1, 2, 3  # what a number is for
GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's, as int64
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Identities:
    """Everything that decides a feature: number of classes, D, angular spread in degrees, seed."""

    classes: int
    dim: int
    spread: float
    seed: int

    def prototypes(self, classes: Tensor) -> Tensor:
        """p_j of int64 [n]: fp32 [n, D], of length 1."""
        return torch.nn.functional.normalize(normals(self.seed, PROTOTYPE, classes, self.dim))

    def features(self, samples: Tensor) -> Tensor:
        """Samples by their numbers, int64 [n] (number i is of class i mod C): fp32 [n, D]."""
        prototypes = self.prototypes(samples % self.classes)
        noise = normals(self.seed, DIRECTION, samples, self.dim)
        noise = noise - (noise * prototypes).sum(dim=1, keepdim=True) * prototypes
        angle = math.radians(self.spread) * normals(self.seed, ANGLE, samples, 1)
        unit = torch.nn.functional.normalize(noise)
        return math.sqrt(self.dim) * (angle.cos() * prototypes + angle.sin() * unit)


@dataclass(frozen=True, eq=False)
class FeatureSplit:
    """Some of the samples, by their numbers: a range, which takes no memory, or int64 [N]. They are made on `device`."""

    source: Identities
    samples: range | Tensor
    device: torch.device = CPU

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.labels_of(torch.arange(len(self), device=self.device))

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"FeatureSplit({plural(len(self), 'sample')} of {self.source.dim} features)"

    def numbers(self, index: Tensor) -> Tensor:
        """The numbers [n] of the samples at `index` (integers [n], on `device`)."""
        if isinstance(self.samples, range):
            return index.long() + self.samples.start
        return self.samples[index.long()]

    def labels_of(self, index: Tensor) -> Tensor:
        """The labels [n] of the samples at `index` (integers [n], on `device`)."""
        return self.numbers(index) % self.source.classes

    def subset(self, indices: Tensor) -> "FeatureSplit":
        """The samples at `indices` (int64 [n])."""
        return FeatureSplit(self.source, self.numbers(indices.to(self.device)), self.device)

    def to(self, device: torch.device) -> "FeatureSplit":
        """The same samples, made on `device`."""
        samples = self.samples if isinstance(self.samples, range) else self.samples.to(device)
        return FeatureSplit(self.source, samples, device)

    def batches(self, indices: Iterable[Tensor], workers: int = 0) -> Iterator[Tensor]:
        """fp32 [n, D] for each tensor of integers [n] of `indices`; `workers` has no effect."""
        for index in indices:
            yield self.source.features(self.numbers(index.to(self.device, non_blocking=True)))


def make_identities(source: Identities) -> Dataset:
    """10 samples of each class to train on and 2 others to test on; classes are called by their numbers."""
    train, everything = TRAIN_SAMPLES * source.classes, (TRAIN_SAMPLES + TEST_SAMPLES) * source.classes
    parts = FeatureSplit(source, range(train)), FeatureSplit(source, range(train, everything))
    return Dataset(SYNTHETIC, Numbers(source.classes), *parts, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def load_identities(request: Request) -> Dataset:
    """The data set of `request`, whose options are classes, dim and spread.

    Raises:
        Refused: a command that works on images asks, and so gives no options.
    """
    if not request.options:
        raise Refused("dataset", f"{SYNTHETIC} has no images", "use it with train, and eval of such a run")
    usual = {name: getattr(TrainConfig, name) for name in ("classes", "dim", "spread")}
    return make_identities(Identities(**(usual | dict(request.options)), seed=request.seed))


def normals(seed: int, purpose: int, index: Tensor, count: int) -> Tensor:
    """Standard normal numbers [n, count] of int64 `index` [n], a pure function of all four (splitmix64, Box-Muller)."""
    pairs = (count + 1) // 2
    # Filled there: a copy would wait for the device.
    seeded = torch.full((), seed, dtype=torch.int64, device=index.device)
    key = _mixed(_mixed(seeded) + purpose)
    place = index[:, None] * pairs + torch.arange(pairs, device=index.device)
    bits = _mixed(key + (place + 1) * GOLDEN)
    uniform = [(((bits >> shift) & 0xFFFFFF).float() + 0.5) * 2**-24 for shift in (0, 24)]
    radius, angle = (-2 * uniform[0].log()).sqrt(), 2 * math.pi * uniform[1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :count]


def _mixed(bits: Tensor) -> Tensor:
    """splitmix64's output function on int64, whose products wrap as unsigned ones do (Steele, Lea, Flood, 2014)."""
    bits = (bits ^ _shifted(bits, 30)) * FIRST
    bits = (bits ^ _shifted(bits, 27)) * SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """bits >> by, without the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
