"""Is the data at hand that which a run was begun with? Told by its identity, or, where none is kept, by classes and pixels' means.

Training states and checkpoints of version 0.1 have no identity of their data.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cifarnet.core.class_names import with_joiners
from cifarnet.core.errors import Refused, plural
from cifarnet.data.dataset import Channels
from cifarnet.data.identity import DataIdentity, differences, parse_identity
from cifarnet.data.shaping import Shaped
from cifarnet.models.checkpoint import FORMAT, read_info
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.sharded_file import existing, metadata_of

UNKNOWN = "does not say what data it began with, or in an older way: be sure that it is the same"
LEVEL = 1e-3  # of pixels in [0, 1], a quarter of a grey level: so much another decoder may change a mean


def check_same_data(
    state: Path, data: DataIdentity, classes: Sequence[str], mean: Channels, std: Channels
) -> list[str]:
    """A warning where it is not known whether a run is resumed on the data that it began with.

    Args:
        state: the run's training state, beside its models.
        data, classes, mean, std: of what it would go on with, as it is trained on.

    Raises:
        Refused: it was begun with other data; the difference is named.
    """
    was, info = known_data(state)
    if was is not None:
        found = differences(was, data)
    else:
        found = unlike_info(info, classes, mean, std) if info is not None else []
    if found:
        fix = "give the data that it began with (`data_dir`), or start a new run"
        raise Refused("resume", f"the run was begun with other data: {'; '.join(found)}", fix)
    return [] if was is not None else [f"the run {UNKNOWN}"]


def known_data(state: Path) -> tuple[DataIdentity | None, ModelInfo | None]:
    """The identity that a training state keeps of its data; where there is none what the last model, else the best one, says."""
    state = existing(state) or state
    was = parse_identity(metadata_of(state, FORMAT, "state").get("data"))
    folder = RunFolder(state.parent)
    return was, (None if was else info_of(folder, folder.last) or info_of(folder, folder.best))


def info_of(folder: RunFolder, path: Path) -> ModelInfo | None:
    """The metadata of a model of the run; None where there is none, or none that can be read."""
    with suppress(Refused):
        if found := existing(path):
            return read_info(folder.checked(found))
    return None


def known_classes(state: Path) -> Sequence[str]:
    """Names of the classes of the run of a training state, in its order; () where neither the state nor a model says them."""
    was, info = known_data(state)
    if was is not None:
        return tuple(map(with_joiners, was.classes))  # of names as a digest has them
    return info.classes if info else ()


def unlike_info(info: ModelInfo, classes: Sequence[str], mean: Channels, std: Channels) -> list[str]:
    """In words, how data differs from what a model says of its own; [] of data with the same classes and means, be it other images."""
    if classes != info.classes:
        return [unlike(classes, info.classes)]
    known = [("mean", info.mean, mean), ("deviation", info.std, std)]
    return [
        f"the {name} of its pixels was {in_words(was)} and is {in_words(now)}"
        for name, was, now in known
        if info.config.normalize and max(abs(one - other) for one, other in zip(was, now, strict=True)) > LEVEL
    ]


def unlike_training(info: ModelInfo, shaped: Shaped) -> list[str] | None:
    """In words, how data differs from that of a model's training; [] where it does not, None where all that is known is the same."""
    known = parse_identity(info.data)
    if known is not None:
        return differences(known, shaped.identity())
    data = shaped.dataset
    return unlike_info(info, data.classes, data.mean, data.std) or None


def unlike(mine: Sequence[str], model: Sequence[str]) -> str:
    """In words, how the classes of a data set differ from a model's."""
    if len(mine) != len(model):
        return f"it has {plural(len(mine), 'class')}, the model {len(model):,}"
    pairs = [(number, one, other) for number, (one, other) in enumerate(zip(mine, model, strict=True)) if one != other]
    number, one, other = pairs[0]
    more = f", and {len(pairs) - 1} more {'differs' if len(pairs) == 2 else 'differ'}" if len(pairs) > 1 else ""
    return f"class {number} is {one} here and {other} in the model{more}"


def in_words(channels: Channels) -> str:
    """Of each channel: "0.491, 0.482, 0.447"."""
    return ", ".join(f"{value:.3f}" for value in channels)
