"""Runs of one name are called by the shortest ends of their paths that differ."""

from pathlib import Path

import pytest

from cifarnet.storage.run_names import checkpoint_names, names_apart


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/runs/side1/same", "/runs/side2/same"], ["side1/same", "side2/same"]),
        (["/runs/side1/same", "/runs/side2/same", "/runs/other"], ["side1/same", "side2/same", "other"]),
        (["/x/1/deep/same", "/x/2/deep/same"], ["1/deep/same", "2/deep/same"]),
        (["/same", "/x/same", "/y/x/same"], ["/same", "/x/same", "y/x/same"]),
        (["/runs/a", "/runs/b", "/runs/a"], ["a (1)", "b", "a (3)"]),
    ],
)
def test_names_are_the_shortest_that_differ(paths, names):
    assert names_apart([Path(path) for path in paths]) == names


def test_checkpoints_are_called_by_their_runs_and_two_of_a_run_by_their_files(tmp_path):
    for name in ("side1/same", "side2/same"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").touch()
    one, two = tmp_path / "side1/same/last.safetensors", tmp_path / "side2/same/best.safetensors"
    assert checkpoint_names([one, two]) == ["side1/same", "side2/same"]
    assert checkpoint_names([one, one.with_name("best.safetensors")]) == ["last", "best"]
    assert checkpoint_names([tmp_path / "my.model.safetensors"]) == ["my.model"]
    assert checkpoint_names([one, one]) == ["last (1)", "last (2)"]
    (tmp_path / "latest").symlink_to(tmp_path / "side2/same")
    assert checkpoint_names([tmp_path / "latest/best.safetensors"]) == ["same"]
