"""Batches: drawn by index from a split on the device, augmented and normalised a whole batch at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cifarnet.data import augment as augmentation
from cifarnet.data.splits import AnySplit, Channels, Split
from cifarnet.devices import send


class Loader:
    """Normalised batches of a split, epoch by epoch.

    Every draw is a pure function of (seed, epoch, position in the epoch): the same on each device and for any number
    of workers, and an epoch entered at batch k goes on as if it had been run from the start.

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
    ) -> None:
        if augment not in augmentation.POLICIES:
            raise ValueError(f"augment must be one of {', '.join(augmentation.POLICIES)}, not {augment!r}")
        self.device = torch.device(device)
        self.batch_size, self.policy, self.cutout = batch_size, augment, cutout
        self.seed, self.shuffle, self.workers = seed, shuffle, workers
        self.labels = split.labels.to(self.device)
        self.split = Split(split.images.to(self.device), self.labels) if isinstance(split, Split) else split
        # (x - mean) / std as one multiply-add
        scale = torch.tensor(std, dtype=torch.float64).reciprocal()
        shift = -torch.tensor(mean, dtype=torch.float64) * scale
        self.scale, self.shift = (t.float()[:, None].to(self.device) for t in (scale, shift))

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not (self.shuffle and rest == 1 and full > 0))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from batch `start` on.

        Yields:
            images float32 [B, 3, H, W], normalised, and labels int64 [B], both on the device.
        """
        order = torch.arange(len(self.split))
        if self.shuffle:
            order = torch.randperm(len(self.split), generator=augmentation.generator_for("order", self.seed, epoch))
        indices = order.split(self.batch_size)[start : len(self)]
        draws = augmentation.draw(len(self.split), self.seed, epoch)
        if self.policy == "alternate":
            draws[:, 2] = augmentation.alternating_flips(order, self.seed, epoch)
        draws_of = draws.split(self.batch_size)[start : len(self)]
        batches = self.split.batches(indices, self.workers)
        for index, numbers, images in zip(indices, draws_of, batches, strict=True):
            images = images.to(self.device, non_blocking=True)
            labels = self.labels[send(index, self.device)]
            yield augmentation.augment(self.policy, images, numbers, self.scale, self.shift, self.cutout), labels
