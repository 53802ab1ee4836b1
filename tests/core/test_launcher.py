"""Processes of a launcher that is not torchrun, or of half of it, are refused: none trains alone in silence."""

import pytest

from cifarnet.core.distributed import ALONE, Ranks, launched
from cifarnet.core.errors import Refused
from cifarnet.core.launcher import NAMES, OTHERS, local_number

TRAIN = "train --dataset digits --arch baseline --epochs 1 --device cpu -q --out run"
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Sets variables; none of a launcher's is there before."""
    for name in (*NAMES, *OTHERS, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def without(*names):
    return {name: value for name, value in TORCHRUN.items() if name not in names}


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        (without("LOCAL_RANK"), "RANK, WORLD_SIZE: set without LOCAL_RANK"),
        (without("RANK", "LOCAL_RANK"), "WORLD_SIZE: set without RANK, LOCAL_RANK"),
        (without("WORLD_SIZE"), "RANK, LOCAL_RANK: set without WORLD_SIZE"),
        (TORCHRUN | {"LOCAL_RANK": ""}, "RANK, WORLD_SIZE: set without LOCAL_RANK"),
        (without("MASTER_ADDR"), "MASTER_ADDR: not set, and there are 4 ranks"),
        (without("MASTER_ADDR", "MASTER_PORT"), "MASTER_ADDR, MASTER_PORT: not set"),
        (TORCHRUN | {"MASTER_PORT": "99999"}, "MASTER_PORT: 99999 is no port"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT: 'http' is not a number"),
        (TORCHRUN | {"RANK": "one"}, "RANK: 'one' is not a number"),
        (TORCHRUN | {"RANK": "4"}, "RANK, WORLD_SIZE, LOCAL_RANK: 4, 4, 1 cannot be together"),
        (TORCHRUN | {"RANK": "-1"}, "RANK, WORLD_SIZE, LOCAL_RANK: -1, 4, 1 cannot be together"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "RANK, WORLD_SIZE, LOCAL_RANK: 1, 0, 1 cannot be together"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, "srun: started several processes"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "mpirun: started several processes"),
        ({"PMI_SIZE": "8", "PMI_RANK": "3"}, "mpiexec: started several processes"),
    ],
)
def test_ranks_of_another_launcher_are_refused(cli, environment, tmp_path, values, subject):
    environment(values)
    for line in (TRAIN, "eval"):
        code, out, err = cli(*line.split())
        assert code == 2 and out == "" and err.startswith(f"error: {subject}") and err.count("\n") == 1, err
    assert list(tmp_path.iterdir()) == [] and local_number() == 0
    assert cli("doctor", "--json")[0] == 0


@pytest.mark.parametrize(
    "values",
    [
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},  # `srun --pty bash`, or the script that sbatch runs
        {"OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_one_process_of_a_launcher_is_alone(environment, values):
    environment(values)
    assert launched() == ALONE


def test_torchrun_counts_below_another_launcher(environment):
    environment(TORCHRUN | {"SLURM_STEP_NUM_TASKS": "2", "OMPI_COMM_WORLD_SIZE": "2"})
    assert launched() == Ranks(1, 4, 1) and local_number() == 1


def test_the_number_of_restarts_is_checked(cli, environment):
    environment({"TORCHELASTIC_RESTART_COUNT": "often"})
    code, _, err = cli(*TRAIN.split())
    assert code == 2 and err.startswith("error: TORCHELASTIC_RESTART_COUNT: 'often' is not a number")


def test_a_launcher_without_ranks_raises_for_a_library_too(environment):
    environment(without("LOCAL_RANK"))
    with pytest.raises(Refused, match="each process would train alone; start with torchrun, or unset them"):
        launched()
