"""Names of classes: in one Unicode form, and those that are called by their numbers."""

import operator
import unicodedata
from collections.abc import Sequence


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC). Files from macOS may have the other one, which looks the same."""
    return unicodedata.normalize("NFC", name)


class Numbers(Sequence[str]):
    """The names "0", "1", … of so many classes, made when they are asked for: there may be millions."""

    def __init__(self, count: int) -> None:
        self.number = count

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        found = range(self.number)[index]
        return tuple(map(str, found)) if isinstance(index, slice) else str(found)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Numbers):
            return self.number == other.number
        return isinstance(other, tuple) and len(other) == self.number and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash(("Numbers", self.number))
