"""One file over HTTPS, from the first of several servers that is fast: resumed, checked, and only then given its name."""

import contextlib
import http.client
import os
import time
from collections.abc import Iterator, Sequence
from io import BufferedRandom
from typing import IO, NoReturn

from cifarnet.core.errors import Failed, Refused
from cifarnet.core.warn import warn
from cifarnet.data.request import ProgressCallback
from cifarnet.data.sources.server import NotFrom, Offer, connect, read_block
from cifarnet.storage.atomic import FULL, partial_of, resuming

SLOW, WINDOW = 1e6, 10.0  # a server that gives fewer bytes a second, over so many seconds, is left for the next
LONGEST = 6 * 3600  # seconds of a whole download
TRIES = 10  # times that a server is asked in all which gives a part each time


def download(offers: Sequence[Offer], progress: ProgressCallback | None = None) -> Offer:
    """Fetch the file of the first offer that holds; it has its name only once it is whole, checked and on the disk.

    The offers are tried in their order. One below `SLOW` is left for the next; where all are, the fastest is kept. What
    came of a file stays beside its place, under `partial_of` its path, and this or the next call goes on from there.
    A warning says which server is used in the place of another, and how long a slow one will take.

    Args:
        offers: one or more; all go into one folder, which can be written.
        progress: called with (bytes so far, bytes in all).

    Returns:
        the offer whose file is there now.

    Raises:
        Refused: no server can be reached, or has this file.
        Failed: cut short, too slow to end, a web page in place of the file, or the disk is full.
    """
    attempt = Attempt(offers, progress, time.monotonic() + LONGEST)
    for offer in offers:
        best = max((error.rate or 0 for error in attempt.failures.values()), default=0)
        with attempt.noting(offer):
            attempt.fetch(offer, SLOW if offer != offers[-1] else min(SLOW, best))
            return offer
    slow = {offer: error.rate for offer, error in attempt.failures.items() if error.rate}
    if slow:
        offer = max(slow, key=lambda one: slow[one])
        del attempt.failures[offer]
        with attempt.noting(offer):
            attempt.fetch(offer, 0)
            return offer
    attempt.give_up()


class Attempt:
    """A download under way.

    Args:
        offers, progress: as in `download`.
        deadline: when it must be done, by time.monotonic().
    """

    def __init__(self, offers: Sequence[Offer], progress: ProgressCallback | None, deadline: float) -> None:
        self.offers, self.progress, self.deadline = offers, progress, deadline
        self.failures: dict[Offer, NotFrom] = {}
        self.told: set[Offer] = set()

    @contextlib.contextmanager
    def noting(self, offer: Offer) -> Iterator[None]:
        """Keeps what is wrong with an offer; what is wrong on this machine is raised."""
        try:
            yield
        except NotFrom as error:
            self.failures[offer] = error
        except OSError as error:
            full = error.errno in FULL
            if full:  # which is in everyone's way
                partial_of(offer.path).unlink(missing_ok=True)
            why = f"what came could not be saved in {offer.path.parent} ({error.strerror or error})"
            raise Failed("download", why, "free some space" if full else "") from error

    def fetch(self, offer: Offer, floor: float) -> None:
        """The file of an offer, whole and checked. Raises NotFrom, also for a server below `floor` bytes a second."""
        with resuming(offer.path) as file:
            begun = file.seek(0, os.SEEK_END)
            for left in reversed(range(TRIES)):
                before = file.seek(0, os.SEEK_END)
                try:
                    self.rest(offer, file, floor)
                    offer.check(file)
                    return
                except NotFrom as error:
                    if file.seek(0, os.SEEK_END) > begun:
                        error.kind = Failed  # also where the server is gone when it is asked for the rest
                    if not (left and error.cut and file.tell() > before):
                        raise
                except Refused as error:  # not the published bytes
                    file.truncate(0)
                    if not (left and before):  # of another time or server the wrong part may be
                        raise NotFrom(error.why, Refused) from error

    def rest(self, offer: Offer, file: BufferedRandom, floor: float) -> None:
        """Adds to the file what it lacks, and goes to its start."""
        start = file.seek(0, os.SEEK_END)
        if start > offer.size:
            start = file.truncate(0)
        if self.progress and start:
            self.progress(start, offer.size)
        if start < offer.size:
            with connect(offer, start) as answer:
                self.tell(offer)
                if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                    start = file.truncate(0)
                file.seek(start)
                self.copy(offer, answer, file, start, floor)
        file.flush()
        file.seek(0)

    def copy(self, offer: Offer, answer: http.client.HTTPResponse, file: IO[bytes], done: int, floor: float) -> None:
        """The body of an answer, from byte `done` on, no more than the published size."""
        since, from_here, said = time.monotonic(), done, False
        while block := read_block(answer):
            done += len(block)
            if done > offer.size:
                file.truncate(0)
                raise NotFrom(f"more came than its {offer.size:,} bytes")
            file.write(block)
            if self.progress:
                self.progress(done, offer.size)
            now = time.monotonic()
            if now > self.deadline:
                raise NotFrom(f"not done after {LONGEST / 3600:.0f} hours")
            if now - since >= WINDOW:
                rate, since, from_here = (done - from_here) / (now - since), now, done
                if rate < floor:
                    raise NotFrom(f"only {in_words(rate)}", rate=rate)
                if rate < SLOW and not said:
                    said = True
                    tell_slow(offer, rate, offer.size - done)
        if done < offer.size:
            raise NotFrom(f"cut off at {done:,} of {offer.size:,} bytes", cut=True)

    def tell(self, offer: Offer) -> None:
        """Says once that this server answers in the place of others."""
        others = [f"{other.host} ({error.why})" for other, error in self.failures.items() if other not in self.told]
        self.told |= self.failures.keys()
        if others:
            warn(f"not from {', '.join(others)}: downloading from {offer.host}")

    def give_up(self) -> NoReturn:
        """Raises what the user is told when no server did."""
        hosts: dict[str, list[str]] = {}
        for offer, error in self.failures.items():
            hosts.setdefault(error.why, []).append(offer.host)
        reasons = "; ".join(f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in hosts.items())
        kept = sum(
            place.stat().st_size for place in {partial_of(offer.path) for offer in self.offers} if place.exists()
        )
        kind = Failed if Failed in {error.kind for error in self.failures.values()} else Refused
        again = f"try again: it goes on from the {kept:,} bytes that are kept" if kept else "try again"
        raise kind("download", reasons, again if kept or kind is Failed else "")


def tell_slow(offer: Offer, rate: float, missing: int) -> None:
    """Says how long a slow server will take, where no faster one is left."""
    left = f"about {max(missing / rate / 60, 1):.0f} min left"
    text = f"{offer.host} gives {in_words(rate)}: {left}; after Ctrl-C the next start goes on from there"
    warn(text)


def in_words(rate: float) -> str:
    """Bytes a second: "1.2 MB/s", "60 kB/s"."""
    return f"{rate / 1e6:.1f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s"
