"""The environment as a launcher leaves it: torchrun's numbers of this process, and the traces of launchers that set none."""

import os

from cifarnet.core.errors import Refused

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# Of other launchers: the variable that counts the processes that they started.
OTHERS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
    "JSM_NAMESPACE_SIZE": "jsrun",
}
USE_TORCHRUN = "start with torchrun, or unset them"


def numbers() -> tuple[int, int, int]:
    """This process's rank, how many ranks there are, and its number on its machine; (0, 1, 0) without torchrun.

    Another launcher may set torchrun's variables too; then all of them must be there.

    Raises:
        Refused: some of these variables are there and not all, or they cannot be; or another launcher started several
            processes without them, each of which would train alone.
    """
    missing = [name for name in NAMES if not os.environ.get(name)]
    if not missing:
        rank, world, local = map(number, NAMES)
        if not (0 <= rank < world and 0 <= local < world):
            raise Refused(", ".join(NAMES), f"{rank}, {world}, {local} cannot be together", USE_TORCHRUN)
        if world > 1:
            check_address()
        return rank, world, local
    if len(missing) < len(NAMES) and os.environ.get("WORLD_SIZE") != "1":
        there = ", ".join(name for name in NAMES if name not in missing)
        why = f"set without {', '.join(missing)}, so that each process would train alone"
        raise Refused(there, why, USE_TORCHRUN)
    for name, launcher in OTHERS.items():
        if os.environ.get(name, "1") != "1":
            why = f"started several processes ({name} is {os.environ[name]}), each of which would train alone"
            raise Refused(launcher, why, "let it start torchrun, once on each machine, or one process")
    return 0, 1, 0


def check_address() -> None:
    """Refuses several ranks that are not told where the first of them listens."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        why = f"not set, and there are {os.environ['WORLD_SIZE']} ranks"
        raise Refused(", ".join(missing), why, "start with torchrun, or set the machine and the port of rank 0")
    if not 0 < number("MASTER_PORT") < 2**16:
        raise Refused("MASTER_PORT", f"{os.environ['MASTER_PORT']} is no port", "give 1 to 65535")


def number(name: str, default: str = "") -> int:
    """The variable as an integer. Raises Refused where it is none."""
    text = os.environ.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        raise Refused(name, f"'{text}' is not a number", USE_TORCHRUN) from error


def local_number() -> int:
    """This process's number on its machine, 0 where it has none: what all of them have to say is said by number 0."""
    try:
        return numbers()[2]
    except Refused:
        return 0


def restarts() -> int:
    """How often torchrun has started these processes again."""
    return number("TORCHELASTIC_RESTART_COUNT", "0")


def may_restart() -> bool:
    """Was torchrun told to start the processes again after a fault (--max-restarts)?"""
    return number("TORCHELASTIC_MAX_RESTARTS", "0") > 0


def job() -> str:
    """Tells this launch from any other, and is the same after a restart; empty without torchrun.

    torchrun's run id, and beside it torchrun's own process where nobody chose an id.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{run} {os.getppid()}" if run == "none" else run
