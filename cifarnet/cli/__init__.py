"""The command line: one file a subcommand, each of which parses, makes one call into the core, and renders the result."""

import os
import sys
import warnings
from functools import cache

import typer

from cifarnet import __version__
from cifarnet.cli import (
    calibrate,
    card,
    complexity,
    data,
    doctor,
    evaluate,
    explore,
    export,
    featuremaps,
    identify,
    predict,
    push,
    quality,
    report,
    runs,
    train,
    tune,
    verify,
    visualize,
    visualize_cmc,
    visualize_diagrams,
)
from cifarnet.cli.common import run_app, show_warning
from cifarnet.cli.grammar import Group, add
from cifarnet.cli.streams import drop_output, guard_streams
from cifarnet.core.caches import house_libraries
from cifarnet.core.distributed import launched
from cifarnet.core.errors import Refused

HELP = """Train, measure and see image classifiers with margin losses (SphereFace, CosFace, ArcFace, AdaFace, ...).

Examples:
    cifarnet train --dataset digits --arch baseline --epochs 5  # no download
    cifarnet eval                                               # the newest run
    cifarnet predict photo.jpg                                  # needs no run
"""
app = typer.Typer(
    name="cifarnet",
    cls=Group,
    help=HELP,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add(app, "train", train.train)
add(app, "tune", tune.tune)
add(app, "eval", evaluate.evaluate)
add(app, "predict", predict.predict)
add(app, "verify", verify.verify)
add(app, "identify", identify.identify)
add(app, "quality", quality.quality)
add(app, "calibrate", calibrate.calibrate)
add(app, "complexity", complexity.complexity)
add(app, "featuremaps", featuremaps.featuremaps)
add(visualize.app, "cmc", visualize_cmc.cmc)
add(visualize.app, "network", visualize_diagrams.network)
add(visualize.app, "margins", visualize_diagrams.margins)
app.add_typer(visualize.app, name="visualize")
add(app, "explore", explore.explore)
add(app, "export", export.export)
add(app, "card", card.card)
add(app, "push", push.push)
add(app, "report", report.report)
add(app, "runs", runs.runs)
add(app, "data", data.data)
add(app, "doctor", doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cifarnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error (may stand anywhere)."),
) -> None:
    try:
        os.getcwd()
    except OSError as error:  # torch could not be loaded
        raise Refused("the current folder", "it is not there any more", "go to another") from error
    house_libraries()
    if context.invoked_subcommand not in ("train", "doctor") and launched().world > 1:
        raise Refused(
            "torchrun",
            f"only train runs in several processes, not {context.invoked_subcommand}",
            "start it without torchrun",
        )


command = cache(typer.main.get_command)  # made once in a process: its 300 options take 25 ms


def run(arguments: list[str]) -> int:
    """Runs a command line (without the program's name) and returns its exit code."""
    return run_app(command(app), arguments)


def main() -> None:
    """The entry point of `cifarnet` and `python -m cifarnet`."""
    guard_streams()
    warnings.showwarning = show_warning
    code = run(sys.argv[1:])
    drop_output()
    sys.exit(code)
