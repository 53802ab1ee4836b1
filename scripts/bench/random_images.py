"""Random pixels in the shape of CIFAR-10, where a script is timed or tried out and no data is at hand."""

import torch

from cifarnet.data import Dataset, Split
from cifarnet.data.dataset import make_dataset
from cifarnet.data.sources.cifar_names import CIFAR10


def random_images(train: int, test: int) -> Dataset:
    """So many images of each split, uint8 [N, 3, 32, 32], with labels that say nothing of them; always the same."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(count) % 10)

    return make_dataset("random-pixels", CIFAR10, split(train), split(test))
