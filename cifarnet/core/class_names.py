"""Names of classes: in one Unicode form, and those that are called by their numbers."""

import operator
import re
import unicodedata
from collections.abc import Sequence

from cifarnet.core.errors import JOINER, Refused, printable


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC). Files from macOS may have the other one, which looks the same."""
    return unicodedata.normalize("NFC", name)


def with_joiners(name: str) -> str:
    """A name as it is, of one that was kept with its joiners (U+200C, U+200D) escaped, as they were before 0.2."""
    if "\\u200" not in name:  # there may be millions
        return name
    return re.sub(r"(?<=[^\x00-\x7f])\\u200([cd])(?=[^\x00-\x7f])", lambda found: chr(int(f"200{found[1]}", 16)), name)


def in_todays_form(name: str) -> str:
    """A name that an earlier version kept, as it is read today."""
    return with_joiners(composed(name))


def without_joiners(name: str) -> str:
    """A name with its joiners escaped. Digests are of this form, so that they stay what they were."""
    return name if name.isascii() else JOINER.sub(lambda found: f"\\u{ord(found[0]):x}", name)


def in_quotes(name: str) -> str:
    """A name as a list of names has it: in double quotes where there is a comma in it."""
    return f'"{name}"' if "," in name else name


def listed_names(names: Sequence[str]) -> str:
    """Names of classes as `hold_out_classes` lists them in text: "cat,dog"; of one alone "3,", since "3" would be how many.

    One with a comma stands in double quotes.

    Raises:
        Refused: something that is no text, or a name that cannot stand in such a list.
    """
    for name in names:
        if not isinstance(name, str):
            raise Refused("hold_out_classes", f"{name!r} is no name of a class", "give names, or how many in a text")
        if "," in name and '"' in name:
            why = f"'{printable(name)}' has a comma and a double quote in it"
            raise Refused("hold_out_classes", why, "rename the class")
    return ",".join(map(in_quotes, names)) + ("," if len(names) == 1 else "")


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
