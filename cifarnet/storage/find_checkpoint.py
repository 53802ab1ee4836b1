"""The checkpoint that a name stands for."""

from pathlib import Path

from cifarnet.core.errors import Refused
from cifarnet.storage.run_folder import LATEST, RunFolder
from cifarnet.storage.sharded_file import existing

# The model that ships with the package, used where there is no run.
PACKAGED = Path(__file__).parents[1] / "weights" / "baseline-plus.safetensors"


def find_checkpoint(name: str | Path | None) -> Path | None:
    """The checkpoint that `name` means: a file, or a run folder's best (else last); None: that of runs/latest, if any.

    Raises:
        Refused: nothing is there, or the folder has no checkpoint.
    """
    if name is None:
        if not LATEST.exists():
            return None
        name = LATEST
    path = Path(name)
    if not path.is_dir():
        if path.exists():
            return path
        raise Refused(str(name), "there is no such run or checkpoint", "name a run folder or a .safetensors file")
    folder = RunFolder(path)
    for candidate in (folder.best, folder.last):
        if found := existing(candidate):
            return found
    raise Refused(str(name), "holds no checkpoint yet", "wait for the end of the first epoch, or name another run")


def default_checkpoint(name: str | Path | None) -> tuple[Path, str]:
    """The checkpoint that a command uses, and a note for the user where he did not name it (else "").

    Raises:
        Refused: as `find_checkpoint`.
    """
    path = find_checkpoint(name)
    if path is None:
        return PACKAGED, "using the small baseline model that ships with cifarnet (no run in runs/latest)"
    return path, "" if name is not None else f"using {path}"
