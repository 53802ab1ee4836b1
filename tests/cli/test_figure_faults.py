"""A figure that cannot be drawn costs no training; and no setting of matplotlib's keeps ours from being drawn."""

import os
import subprocess

import forked_python
import pytest

from cifarnet.analysis.plots import sphere
from cifarnet.analysis.plots.mpl import Figure

TRAIN = [
    "train",
    "--dataset",
    "digits",
    "--arch",
    "baseline",
    "--epochs",
    "2",
    "--augment",
    "none",
    "--precision",
    "fp32",
]
DRAW = """
import sys
from pathlib import Path
from cifarnet.analysis.plots import confusion
confusion.draw({"": [[3, 1], [0, 2]]}, ["$x^2$", "b_c"], Path(sys.argv[1]), "title")
import matplotlib
print(matplotlib.rcParams["text.usetex"], matplotlib.rcParams["figure.dpi"], matplotlib.rcParams._get("backend"), sep="|")
"""
# What somebody's settings may say, each fit to change or to end a drawing.
MATPLOTLIBRC = """
text.usetex: True
font.family: No Such Font
text.parse_math: True
svg.fonttype: path
savefig.bbox: tight
savefig.transparent: True
figure.dpi: 33
axes.prop_cycle: cycler("color", ["r"])
image.cmap: gray
path.sketch: 5, 100, 2
axes.formatter.use_mathtext: True
no.such.name: 3
"""


def draw(folder, name, **environment):
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | environment
    result = subprocess.run(
        [forked_python.executable(), "-c", DRAW, str(folder / name)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return (folder / name).read_bytes(), result.stdout.strip().split("|")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_settings_of_the_user_change_nothing_and_stay(tmp_path, suffix):
    plain, _ = draw(tmp_path, f"plain.{suffix}")
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    for backend in ("module://matplotlib_inline.backend_inline", "module://no.such.module", "no-such-backend", "svg"):
        drawn, (usetex, dpi, kept) = draw(tmp_path, f"drawn.{suffix}", MPLBACKEND=backend)
        assert drawn == plain
        assert (usetex, dpi) == ("True", "33.0") and (kept == backend or backend == "no-such-backend")


def broken(*_, **__):
    raise ZeroDivisionError("of a library [red]below[/]")


def test_a_training_outlives_its_figures(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", broken)
    code, out, err = cli(*TRAIN, "--out", "run")
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert code == 0 and "accuracy" in out and (tmp_path / "run" / "summary.json").exists()
    why = "is not drawn: ZeroDivisionError: of a library [red]below[/]"
    assert warnings == [f"warning: curves.png {why}", f"warning: confusion.png {why}"]


def test_an_evaluation_outlives_its_figure(cli, monkeypatch):
    assert cli(*TRAIN, "--out", "run")[0] == 0
    monkeypatch.setattr(Figure, "savefig", broken)
    code, out, err = cli("eval", "run")
    assert code == 0 and "accuracy" in out and "confusion.png" not in out
    assert err.count("warning: confusion.png is not drawn") == 1


def test_a_film_that_fails_is_warned_of_once(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sphere, "draw", broken)
    code, _, err = cli(*TRAIN, "--embed-dim", "3", "--animate", "--out", "run")
    assert code == 0 and (tmp_path / "run" / "confusion.png").exists()
    assert err.count("warning: a frame is not drawn: ZeroDivisionError") == 1


def test_a_matplotlib_that_does_not_start(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"# \xe9\n")
    line = [forked_python.executable(), "-m", "cifarnet", *TRAIN[:-4], "--epochs", "1", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0 and (tmp_path / "run" / "summary.json").exists()
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: c")]
    assert len(warnings) == 2 and all("matplotlib does not start" in line for line in warnings)
    assert "Cannot decode" not in result.stderr and "Traceback" not in result.stderr
