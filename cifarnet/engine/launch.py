"""From a configuration to a session that stands ready on every rank: what one rank lacks is found before the first step."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cifarnet.core.config import TrainConfig
from cifarnet.core.distributed import Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.fields import flag
from cifarnet.data import Dataset, Split, StreamedSplit
from cifarnet.engine.setup import build_session, settle
from cifarnet.engine.train_state import Session, join
from cifarnet.storage.run_folder import find_checkpoint

CHUNK = 4096  # images hashed together


def prepare(
    config: TrainConfig,
    ranks: Ranks,
    load: Callable[[], Dataset],
    *,
    state: Path | None = None,
    init_from: Path | None = None,
) -> tuple[Session, list[str]]:
    """The session of this rank, joined to the others, and warnings for the user.

    Args:
        load: reads the data set; on each machine one rank is first, so that only one downloads what is missing.
        state: the training state to go on from, which every rank must be able to read.
        init_from: a checkpoint or run whose weights to start from.

    Raises:
        Refused, Failed: on every rank, what went wrong on one: data that cannot be read, an option that cannot be met,
            another configuration, other data, or another torch than the first rank's.
    """

    def settled() -> Path | None:
        settle(config, ranks)
        return find_checkpoint(init_from) if init_from is not None else None

    source = ranks.gather(settled)[ranks.rank]  # before minutes of reading or downloading
    found: list[Dataset] = []
    for turn in (True, False):
        ranks.gather(lambda mine=(ranks.local == 0) == turn: found.append(load()) if mine else None)  # type: ignore[misc]
    if ranks.world > 1:
        check_alike(ranks.gather(lambda: card(config, found[0])))
    ready: list[tuple[Session, list[str]]] = []

    def build() -> dict[str, str]:
        session = build_session(config, found[0], source, ranks)
        ready.append((session, session.load(state) if state is not None else []))
        place = f"at epoch {session.progress.epoch}, step {session.progress.step}"
        return {"training state": place, "precision": session.precision, "head backend": session.backend}

    check_alike(ranks.gather(build))
    session, warnings = ready[0]
    join(session)
    return session, warnings


def card(config: TrainConfig, dataset: Dataset) -> dict[str, str]:
    """What must be the same on all ranks, in words: each option but those of place and device, the data, torch."""
    own = ("data_dir", "workers", "device")
    options = {flag(name): str(value) for name, value in config.to_dict().items() if name not in own}
    data = f"{len(dataset.train):,} + {len(dataset.test):,} images, {len(dataset.classes)} classes, digest {digest(dataset)}"
    return options | {"data": data, "torch": torch.__version__}


def check_alike(cards: list[dict[str, Any]]) -> None:
    """Refuses ranks whose cards are not that of the first, naming the lowest such rank and what differs."""
    for rank, other in enumerate(cards):
        differing = [name for name in cards[0] if other.get(name) != cards[0][name]]
        if differing:
            changes = ", ".join(f"{name} {other.get(name)}, not {cards[0][name]}" for name in differing)
            raise Refused(
                f"rank {rank}", f"differs from rank 0: {changes}", "start all ranks alike, with the same data"
            )


def digest(dataset: Dataset) -> str:
    """16 hex digits over classes, labels and images (of images that stay on the disk, over their names and order)."""
    found = hashlib.blake2b("\0".join(dataset.classes).encode(), digest_size=8)
    for split in (dataset.train, dataset.test):
        found.update(split.labels.cpu().numpy().tobytes())
        if isinstance(split, Split):
            for images in split.images.split(CHUNK):
                found.update(images.cpu().contiguous().numpy())
        elif isinstance(split, StreamedSplit):
            found.update(split.source.digest().encode())
    return found.hexdigest()
