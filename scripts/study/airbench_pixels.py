"""CIFAR-10 as the public airbench scripts keep it, so that they train on the same images: python airbench_pixels.py DATA_DIR DEST"""

import sys
from pathlib import Path

import torch

from cifarnet.data import Split, load


def main() -> None:
    """Writes DEST/cifar10/train.pt and test.pt: uint8 images [N, 32, 32, 3], labels, class names."""
    folder = Path(sys.argv[2], "cifar10")
    folder.mkdir(parents=True, exist_ok=True)
    data = load("cifar10", sys.argv[1])
    for name, split in (("train", data.train), ("test", data.test)):
        assert isinstance(split, Split)
        images = split.images.permute(0, 2, 3, 1).contiguous()
        torch.save({"images": images, "labels": split.labels, "classes": list(data.classes)}, folder / f"{name}.pt")


if __name__ == "__main__":
    main()
