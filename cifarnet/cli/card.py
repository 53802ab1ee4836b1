"""`cifarnet card`: a trained model -> its card, a README.md as the Hugging Face hub reads it."""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli.common import print_path
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.run_option import Run
from cifarnet.storage.output import check_output, write_output
from cifarnet.storage.run_names import home_of


def card(
    run: Run = None,
    out: Annotated[Path | None, typer.Option(help="The file (default: README.md in the run's folder).")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the card of a model: data with its digest, scores with intervals, confusions, calibration, limits, the command.

    Examples:
        cifarnet card
        cifarnet card runs/latest --out card.md
    """
    from cifarnet.analysis.card.facts import facts_of
    from cifarnet.analysis.card.text import card as text_of
    from cifarnet.models.checkpoint import read_info
    from cifarnet.storage.find_checkpoint import default_checkpoint

    path = default_checkpoint(run)
    place = check_output(out or (home_of(path) or Path()) / "README.md", overwrite)
    write_output(place, text_of(facts_of(path, read_info(path))).encode())
    print_path(place)
