"""The checkpoint that a name stands for."""

from pathlib import Path

from cifarnet.core.errors import Refused, plural
from cifarnet.core.fields import check_path
from cifarnet.storage.run_folder import RunFolder
from cifarnet.storage.runs import latest, newer_without_checkpoint, own_name, read_facts

_WEIGHTS = Path(__file__).parents[1] / "weights"
PACKAGED = _WEIGHTS / "speednet.safetensors"  # used where there is no run
PACKAGED_MODELS = {"packaged": PACKAGED, "packaged:baseline": _WEIGHTS / "baseline-plus.safetensors"}


def find_checkpoint(name: str | Path | None) -> Path | None:
    """The checkpoint that `name` means; None: that of runs/latest, if any.

    A file, or a run folder's best (else last), in the folder that a link leads to: runs/latest leads elsewhere later. Where
    neither is there, "packaged" is the model that ships with cifarnet and "packaged:baseline" the report's small CNN.

    Raises:
        Refused: nothing is there, the folder has no checkpoint, or it is no name at all.
    """
    check_path("run", name)
    path = latest() if name is None else Path(name)
    if path is None:
        return None
    if not path.is_dir():
        if path.exists():
            return path
        if str(name) in PACKAGED_MODELS:
            return PACKAGED_MODELS[str(name)]
        known = " or ".join(PACKAGED_MODELS)
        raise Refused(
            str(name), "there is no such run or checkpoint", f"name a run folder, a .safetensors file, {known}"
        )
    if found := RunFolder(own_name(path)).checkpoint:
        return found
    raise without_checkpoint(path)


def need_checkpoint(name: str | Path | None) -> Path:
    """The checkpoint that `name` means; None: that of runs/latest.

    Raises:
        Refused: there is no run yet; else as `find_checkpoint`.
    """
    path = find_checkpoint(name)
    if path is None:
        raise Refused("runs", "there is no run yet (no runs/latest)", "train one, or name a run folder or checkpoint")
    return path


def without_checkpoint(path: Path) -> Refused:
    """The error for a folder in which no checkpoint is: what the folder is, and what became of the run in it."""
    another = "name another run, or a .safetensors file"
    if not RunFolder(path).is_run():
        return Refused(str(path), "is no run folder: it has neither a checkpoint nor a run's config.json", another)
    facts = read_facts(path)
    if facts is None:
        return Refused(str(path), "holds no checkpoint", another)
    if facts.state == "running":
        return Refused(str(path), "holds no checkpoint yet", "wait for the end of the first epoch, or name another run")
    resumes = RunFolder(path).written_state and facts.state != "diverged"
    again = "resume it" if resumes else "train it again"
    if facts.epochs_done or facts.state == "finished":
        done = f"{facts.epochs_done} of {plural(facts.epochs_asked, 'epoch')}"
        return Refused(str(path), f"its checkpoints are gone, after {done}", f"{again}, or {another}")
    return Refused(str(path), f"it {facts.state} in its first epoch, before a checkpoint", f"{again}, or {another}")


def default_checkpoint(name: str | Path | None) -> Path:
    """The checkpoint that `name` means; None: that of runs/latest, else the model that ships with the package.

    Raises:
        Refused: as `find_checkpoint`.
    """
    return find_checkpoint(name) or PACKAGED


def is_packaged(path: Path) -> bool:
    """Does the checkpoint ship with cifarnet?"""
    return path in PACKAGED_MODELS.values()


def newer_note(path: Path) -> str:
    """The note on a newer run than that of the checkpoint `path`, which has no model: to be said where nobody named a run."""
    newer = newer_without_checkpoint(path.parent)
    return f"; the newer {newer[0]} has no checkpoint ({newer[1]})" if newer else ""
