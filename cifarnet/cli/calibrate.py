"""`cifarnet calibrate`: a trained model and images that it has not seen -> probabilities that can be believed."""

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.figure_command import DataDir, Device
from cifarnet.cli.run_option import Run
from cifarnet.cli.table import Facts
from cifarnet.core.errors import Refused


def calibrate(
    run: Run = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="A set of other images, whose training split is taken (default: what the run held out)."),
    ] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit a temperature and a threshold for unknown images, on images that the run has not trained on.

    Both go into the checkpoint; predict, eval and export use them. Training with --val-fraction does it by itself.

    Examples:
        cifarnet calibrate runs/held-out         # on what this run held out
        cifarnet calibrate runs/held-out --json
    """
    from cifarnet.cli.headline import say_opened
    from cifarnet.cli.progress import load_shown
    from cifarnet.cli.tables import calibration_rows
    from cifarnet.engine.held_out import calibrate as fit_to
    from cifarnet.engine.held_out import open_held_out
    from cifarnet.storage.find_checkpoint import is_packaged, need_checkpoint
    from cifarnet.storage.run_folder import RunFolder

    path = need_checkpoint(run)
    if is_packaged(path):
        raise Refused("calibrate", "the model in the package stays as it is", "copy its file and name the copy")
    with ExitStack() as held:
        folder = RunFolder(path.parent)
        if folder.is_run():  # no training goes on while its checkpoint is written
            held.enter_context(folder)
        opened = open_held_out(path, dataset, data_dir=data_dir, device=device, load=partial(load_shown, messages()))
        say_opened(messages(), opened, named=run is not None)
        with messages().status("calibrating"):
            document = fit_to(opened)
    if json_output:
        print_json(document)
        return
    least = f"images with an energy score below {document['fitted']['unknown_at']:.3g}"
    results().print(Facts([*calibration_rows(document), ("none of the classes", least), ("checkpoint", str(path))]))
