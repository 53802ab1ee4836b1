"""Files that are no part of a set, counted by suffix and reason and said in one line."""

import os
from collections import Counter

from cifarnet.core.errors import printable
from cifarnet.core.warn import warn
from cifarnet.data.images.formats import UNREAD

NO_IMAGE, UNREADABLE = "no images", "no format that is read here"
SAID = 6  # kinds; of more, the number is given
BARE = "without a suffix"


class LeftOut(Counter[tuple[str, str]]):
    """How many of each (reason, kind): ("no images", ".txt")."""

    def add_file(self, name: str) -> None:
        """A file that is no image by its name."""
        if name.startswith("."):
            self["hidden", ""] += 1
        else:
            suffix = printable(os.path.splitext(name)[1].lower())[:20]
            self[UNREADABLE if suffix in UNREAD else NO_IMAGE, suffix or BARE] += 1

    def in_words(self) -> str:
        """ "12 .txt, 3 .mp4 (no images), hidden: 2"; "" where nothing was left out."""
        shown = sorted(self.items(), key=lambda item: (-item[1], item[0]))[:SAID]
        reasons: dict[str, list[str]] = {}
        for (reason, kind), count in shown:
            reasons.setdefault(reason, []).append(f"{count:,} {kind}" if kind else f"{reason}: {count:,}")
        named = {
            reason: f" ({reason})" if all(kind for other, kind in self if other == reason) else "" for reason in reasons
        }
        parts = [", ".join(kinds) + named[reason] for reason, kinds in reasons.items()]
        if rest := self.total() - sum(count for _, count in shown):
            parts.append(f"{rest:,} of other kinds")
        return ", ".join(parts)

    def say(self, what: str) -> None:
        """The one line, as a warning, where anything was left out."""
        if self:
            warn(f"{what}: left out: {self.in_words()}")

    def as_pairs(self) -> tuple[tuple[str, int], ...]:
        """For `Found`: (".txt: no images", 12)."""
        return tuple((f"{kind}: {reason}" if kind else reason, count) for (reason, kind), count in self.most_common())
