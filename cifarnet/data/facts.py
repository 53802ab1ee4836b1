"""A data set in a few words: where it lies, how many images of how many classes, its digest."""

from dataclasses import dataclass, field

from cifarnet.data.dataset import Dataset
from cifarnet.data.identity import identity_of
from cifarnet.data.registry import DATASETS

NO_FILES = "needs no files"  # in place of a layout, of a set that is made or came with a package
MISSING = "missing"  # in place of a status


@dataclass(frozen=True)
class DataFacts:
    """A data set, or why there is none.

    Args:
        name: as in `DATASETS`.
        layout, path, status, left_out: see `Found`; None where nothing was noted.
        train, test: images of the two splits.
        classes: how many.
        digest: of classes, labels and images (`identity_of`).
        problem: why it cannot be read, and what to do; "" where it can.
    """

    name: str
    layout: str | None = None
    path: str | None = None
    train: int | None = None
    test: int | None = None
    classes: int | None = None
    digest: str | None = None
    status: str | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    problem: str = ""


def facts_of(data: Dataset) -> DataFacts:
    """The facts of a data set; all its pixels are read where they are in memory."""
    found, row = data.found, DATASETS.get(data.name)
    return DataFacts(
        data.name,
        layout=found.layout if found else NO_FILES if row and not row.takes_folder else None,
        path=str(found.path) if found else None,
        train=len(data.train),
        test=len(data.test),
        classes=len(data.classes),
        digest=identity_of(data.classes, data.train, data.test).digest,
        status=found.status if found else None,
        left_out=dict(found.left_out) if found else {},
    )
