"""CIFAR-10 and CIFAR-100 as their authors published them: addresses, names, sizes and checksums of files."""

from collections.abc import Mapping
from dataclasses import dataclass

from cifarnet.data.sources.archive import Archive
from cifarnet.data.sources.cifar_names import CIFAR10, CIFAR100_COARSE, CIFAR100_FINE

PIXELS = 3 * 32 * 32
OFFICIAL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class PublishedBatch:
    """A Python batch as it was published: its MD5, and its size in bytes, None where that is not known."""

    md5: str
    size: int | None = None


@dataclass(frozen=True)
class Cifar:
    """One of the two sets. A record of the binary files is its label bytes, then 3072 pixels (R, G, B planes).

    Args:
        title: as its authors write it.
        archive: the official binary archive.
        train, test: its files of the two splits; a Python batch has the same name without ".bin".
        label_classes: class names of each label byte, in the order of the bytes.
        python: the official archive of Python batches.
        batches: the Python batches, by name.
        label_keys: what the labels are called in a Python batch, in the order of the bytes.
        parquet: the repository and the folder of the parquet files on the Hugging Face hub.
        label_columns: what the labels are called there.
    """

    title: str
    archive: Archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_classes: tuple[tuple[str, ...], ...]
    python: Archive
    batches: Mapping[str, PublishedBatch]
    label_keys: tuple[str, ...]
    parquet: tuple[str, str]
    label_columns: tuple[str, ...]

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return len(self.label_classes) + PIXELS

    def count(self, *files: str) -> int:
        """How many images these of the binary files hold together; a Python batch holds as many as the file of its name."""
        return sum(self.archive.files[file] // self.record for file in files)


def batch_ceiling(images: int) -> int:
    """Bytes that a batch in a published archive may have: its pixels, and 100 for an image's name and labels."""
    return images * (PIXELS + 100) + 10_000


SETS = {
    "cifar10": Cifar(
        title="CIFAR-10",
        archive=Archive(
            url=OFFICIAL + "cifar-10-binary.tar.gz",
            size=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            folder="cifar-10-batches-bin",
            files={f"data_batch_{i}.bin": 30_730_000 for i in range(1, 6)} | {"test_batch.bin": 30_730_000},
        ),
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        label_classes=(CIFAR10,),
        python=Archive(
            url=OFFICIAL + "cifar-10-python.tar.gz",
            size=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            folder="cifar-10-batches-py",
            files=dict.fromkeys([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], batch_ceiling(10_000)),
            ceilings=True,
        ),
        batches={
            "data_batch_1": PublishedBatch("c99cafc152244af753f735de768cd75f", 31_035_704),
            "data_batch_2": PublishedBatch("d4bba439e000b95fd0a9bffe97cbabec", 31_035_320),
            "data_batch_3": PublishedBatch("54ebc095f3ab1f0389bbae665268c751", 31_035_999),
            "data_batch_4": PublishedBatch("634d18415352ddfa80567beed471001a", 31_035_696),
            "data_batch_5": PublishedBatch("482c414d41f54cd18b22e5b47cb7c3cb", 31_035_623),
            "test_batch": PublishedBatch("40351d587109b95175f43aff81a1287e", 31_035_526),
        },
        label_keys=("labels",),
        parquet=("uoft-cs/cifar10", "plain_text"),
        label_columns=("label",),
    ),
    "cifar100": Cifar(
        title="CIFAR-100",
        archive=Archive(
            url=OFFICIAL + "cifar-100-binary.tar.gz",
            size=168_513_733,
            md5="03b5dce01913d631647c71ecec9e9cb8",
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            folder="cifar-100-binary",
            files={"train.bin": 153_700_000, "test.bin": 30_740_000},
        ),
        train=("train.bin",),
        test=("test.bin",),
        label_classes=(CIFAR100_COARSE, CIFAR100_FINE),
        python=Archive(
            url=OFFICIAL + "cifar-100-python.tar.gz",
            size=169_001_437,
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            folder="cifar-100-python",
            files={"train": batch_ceiling(50_000), "test": batch_ceiling(10_000)},
            ceilings=True,
        ),
        batches={
            "train": PublishedBatch("16019d7e3df5f24257cddd939b257f8d", 155_249_918),
            "test": PublishedBatch("f0ef6b0ae62326f3e7ffdfab6717acfc"),
        },
        label_keys=("coarse_labels", "fine_labels"),
        parquet=("uoft-cs/cifar100", "cifar100"),
        label_columns=("coarse_label", "fine_label"),
    ),
}
