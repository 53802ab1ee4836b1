"""The folder of a run, and the names of runs beside each other: the last parts of their paths that tell them apart."""

from collections.abc import Sequence
from pathlib import Path


def home_of(file: Path) -> Path | None:
    """The folder of the run that a checkpoint or another file lies in; None where it lies in no run's."""
    return file.parent if (file.parent / "config.json").is_file() else None


def names_apart(paths: Sequence[Path]) -> list[str]:
    """The names of paths, of those with one name with the parents in which they differ ("side1/same", "side2/same").

    Links are followed. Where one path stands twice its place among them is added.
    """
    ends = [path.resolve().parts for path in paths]
    names = [name_apart(one, ends) for one in ends]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def checkpoint_names(checkpoints: Sequence[Path]) -> list[str]:
    """The names of the runs of checkpoints: by their folders, or by the files where these lie in no run's folder or two in one."""
    files = [path.resolve() for path in checkpoints]
    homes = [home_of(file) or file.with_suffix("") for file in files]
    return names_apart(homes if len(set(homes)) == len(homes) else [file.with_suffix("") for file in files])


def name_apart(one: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    """The shortest end of an absolute path's parts that no other path has."""
    for length in range(1, len(one)):
        if len({tuple(other) for other in others if other[-length:] == one[-length:]}) == 1:
            return "/".join(one[-length:])
    return str(Path(*one))
