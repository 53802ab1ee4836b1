"""The folder of a run that is about to train: may it be written, or resumed?"""

from pathlib import Path

from cifarnet.core.errors import Refused
from cifarnet.storage.lock import is_held
from cifarnet.storage.run_folder import LOCK, RunFolder
from cifarnet.storage.sharded_file import existing


def open_run(out: Path, *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder of a run that is about to train; enter it to hold it.

    Raises:
        Refused: it holds a run and neither resume nor overwrite is asked for, or there is nothing to resume.
    """
    folder = RunFolder(out)
    if folder.holds_others():
        raise Refused(str(out), "holds files that are no run of cifarnet", "choose another `out`, or an empty folder")
    if out.is_file():
        fix = f"to start from its weights use `init_from={out}`" if resume else "choose another `out`"
        raise Refused(str(out), "is a file, not a run folder", fix)
    if resume and not existing(folder.state):
        if is_held(folder.path / LOCK):  # it has not come as far as its first checkpoint
            raise Refused(str(out), "another process is training there", "wait for it, or choose another folder")
        if existing(folder.last):
            fix = f"to start from its weights use `init_from={existing(folder.last)}`"
            raise Refused(str(out), "has weights but no training state to resume", fix)
        if folder.own_files():  # killed before its first checkpoint
            raise Refused(str(out), "has no training state to resume yet", "use `overwrite` to start again")
        raise Refused(str(out), "there is no run to resume", "leave `resume` out to start one")
    if folder.own_files() and not (resume or overwrite):
        ways = "`resume` to continue it, or `overwrite` to start again" if existing(folder.state) else "`overwrite`"
        raise Refused(str(out), "already holds a run", f"add {ways}")
    if resume and (state := existing(folder.state)):
        folder.checked(state)
    return folder
