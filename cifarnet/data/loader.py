"""Batches: drawn by index from a split on the device, augmented and normalised a whole batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cifarnet.core.devices import send
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.data.augment import batch as augmentation
from cifarnet.data.dataset import AnySplit, Channels, Split
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.sources.synthetic import FeatureSplit


class Loader:
    """Normalised batches of a split, epoch by epoch.

    Every draw is a pure function of (seed, epoch, position in the epoch): the same on each device and for any number
    of workers, and an epoch entered at batch k goes on as if it had been run from the start. The batches are the same
    for any number of ranks: of each, a rank makes its contiguous part.

    Args:
        split: the images; those in memory move to `device` once, as uint8.
        batch_size: images a batch; the last batch of an epoch may be smaller.
        device: where batches are made.
        mean, std: per channel, of pixels in [0, 1].
        augment: a name of `augment.POLICIES`.
        cutout: side of the square erased in each image, pixels; 0: none.
        seed: of the order and of the augmentation.
        shuffle: a new order each epoch. A last batch of a single image, of which BatchNorm can take no statistics,
            is then dropped unless it is the only one.
        workers: processes that decode a streamed split; without effect on one in memory.
        ranks: with several, `shuffle` gives this rank's part of each batch, at least one image; without it, this rank's
            part of the split: ceil(N / world) images, the last ones repeated, so that the parts of all ranks, one
            after the other, begin with the split.
        neighbour: with several ranks, each part is preceded by the image before it in its batch (the last before the
            first): what mixing needs.
    """

    def __init__(
        self,
        split: AnySplit,
        batch_size: int,
        device: torch.device | str,
        *,
        mean: Channels,
        std: Channels,
        augment: str = "none",
        cutout: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 0,
        ranks: Ranks = ALONE,
        neighbour: bool = False,
    ) -> None:
        if augment not in augmentation.POLICIES:
            raise ValueError(f"augment must be one of {', '.join(augmentation.POLICIES)}, not {augment!r}")
        self.device = torch.device(device)
        self.batch_size, self.policy, self.cutout = batch_size, augment, cutout
        self.seed, self.shuffle, self.workers = seed, shuffle, workers
        self.ranks, self.neighbour = ranks, neighbour and ranks.world > 1
        if isinstance(split, FeatureSplit):
            split = split.to(self.device)
        else:
            self.labels = split.labels.to(self.device)
        if isinstance(split, Split):
            split = Split(split.images.to(self.device), self.labels, split.known_hashes)
        self.split = split
        # (x - mean) / std as one multiply-add
        scale = torch.tensor(std, dtype=torch.float64).reciprocal()
        shift = -torch.tensor(mean, dtype=torch.float64) * scale
        self.scale, self.shift = (t.float()[:, None].to(self.device) for t in (scale, shift))

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not (self.shuffle and rest == 1 and full > 0))

    def size(self, batch: int) -> int:
        """Images in batch `batch` of a training epoch, over all ranks."""
        return min(self.batch_size, len(self.split) - batch * self.batch_size)

    def positions(self) -> list[Tensor]:
        """Where in the epoch's order the images of this rank stand, batch by batch: int64 [B] each."""
        if not self.shuffle:
            share = -(-len(self.split) // self.ranks.world)
            mine = torch.arange(self.ranks.rank * share, (self.ranks.rank + 1) * share).clamp_(max=len(self.split) - 1)
            return list(mine.split(self.batch_size))
        parts = []
        for batch in range(len(self)):
            begin, end = self.ranks.part(self.size(batch))
            part = torch.arange(begin - self.neighbour, end) % self.size(batch)
            parts.append(batch * self.batch_size + part)
        return parts

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from batch `start` on.

        Yields:
            images float32 [B, 3, H, W], normalised (features [B, D] of a `FeatureSplit`), and labels int64 [B], both on the device.
        """
        if isinstance(self.split, FeatureSplit):
            yield from self._features(self.split, epoch, start)
            return
        order = torch.arange(len(self.split))
        if self.shuffle:
            order = torch.randperm(len(self.split), generator=augmentation.generator_for("order", self.seed, epoch))
        draws = augmentation.draw(len(self.split), self.seed, epoch, self.policy, self.cutout)
        if self.policy == "alternate":
            draws[:, 2] = augmentation.alternating_flips(order, self.seed, epoch)
        positions = self.positions()[start:]
        indices, labels = self._pick(order, positions)
        batches = self.split.batches(indices, self.workers)
        for position, answers, images in zip(positions, labels, batches, strict=True):
            images = send(images, self.device)
            images = augmentation.augment(self.policy, images, draws[position], self.scale, self.shift, self.cutout)
            yield images, answers

    def _features(self, split: FeatureSplit, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of features, which come as they are; of ten million samples nothing is held but their order, in int32."""
        order = None
        if self.shuffle:
            generator = augmentation.generator_for("order", self.seed, epoch)
            order = send(torch.randperm(len(split), generator=generator, dtype=torch.int32), self.device)
        share = -(-len(split) // self.ranks.world)
        for batch in range(start, len(self) if self.shuffle else -(-share // self.batch_size)):
            if order is None:
                begin = self.ranks.rank * share + batch * self.batch_size
                end = min(begin + self.batch_size, (self.ranks.rank + 1) * share)
                index = torch.arange(begin, end, device=self.device).clamp_(max=len(split) - 1)
            else:
                begin, end = (batch * self.batch_size + at for at in self.ranks.part(self.size(batch)))
                index = order[begin:end]
            yield next(split.batches([index])), split.labels_of(index)

    def _pick(self, order: Tensor, positions: list[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Of each batch the images' indices, where the split's images are, and the labels, on the device; int64 [B] each.

        They go to the device once an epoch and in one copy, 8 bytes an image.
        """
        if not positions:
            return [], []
        sizes = [len(position) for position in positions]
        index = order[torch.cat(positions)]
        there = send(index, self.device)
        in_memory = not isinstance(self.split, StreamedSplit)
        return (there if in_memory else index).split(sizes), self.labels[there].split(sizes)
