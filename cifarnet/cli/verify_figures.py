"""`cifarnet visualize det` and `scores`: how well runs tell identities apart, and the scores behind that."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli import figures
from cifarnet.cli.common import messages, print_path
from cifarnet.cli.figure_command import DataDir, DataOut, Device, Out, Split, Title
from cifarnet.cli.rates import parse_rates
from cifarnet.cli.run_option import Run, Runs
from cifarnet.core.percent import percent
from cifarnet.data.shape_options import SHOWN
from cifarnet.storage.run_names import checkpoint_names

if TYPE_CHECKING:
    from cifarnet.analysis.verify_images import Measured
    from cifarnet.cli.inputs import Wanted

Classes = Annotated[
    str | None,
    typer.Option(help="unseen, seen or all (default: unseen, if any were held out).", metavar="unseen|seen|all"),
]
Far = Annotated[
    str | None, typer.Option(help="Thresholds at these false accept rates, as 1e-1,1e-2.", show_default=False)
]
Flip = Annotated[bool, typer.Option("--flip", help="Add the mirrored image's features.")]


def det(
    runs: Runs = None,
    split: Split = "test",
    classes: Classes = None,
    flip: Flip = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="PNG, SVG or PDF (default: det.png, of one run in its folder).")
    ] = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """Both errors of verification against each other, of one run or several (DET, normal-deviate axes).

    Examples:
        cifarnet visualize det
        cifarnet visualize det runs/* --out det.svg
    """
    from cifarnet.analysis.plots.verification import draw_det, numbers
    from cifarnet.analysis.verification.rates import det_points
    from cifarnet.cli import inputs
    from cifarnet.storage.find_checkpoint import need_checkpoint

    asked: list[Path | None] = [*runs] if runs else [None]
    checkpoints = [need_checkpoint(run) for run in asked]
    out, data_out = figures.asked_figure(out, overwrite), figures.numbers_path(data_out, overwrite)
    wanted = inputs.Wanted(split, classes, data_dir, device)
    measured = [measure(run, wanted, flip, []) for run in asked]
    headings, alike = {heading for _, heading, _ in measured}, len({one.images for one, _, _ in measured}) == 1
    names = checkpoint_names(checkpoints)
    if not alike:
        which = (f"{name}: {': '.join(told(one))}" for (one, _, _), name in zip(measured, names, strict=True))
        messages().remark("warning", f"these curves are not of the same images: {'; '.join(which)}")
    together = measured[0][0].measured_on if alike else "Not of the same images"
    curves = {}
    for (one, _, _), name in zip(measured, names, strict=True):
        where = "" if alike else "\n" + "\n".join(told(one))
        curves[f"{name}: EER {percent(one.found.eer)}{where}"] = det_points(one.found.genuine, one.found.impostor)
    homes = [home for _, _, home in measured]
    target = out or figures.unnamed(f"{figures.of_split('det', split)}.png", overwrite, *homes)
    draw_det(
        curves, target, title if title is not None else headings.pop() if alike and len(headings) == 1 else together
    )
    figures.write_numbers(data_out, numbers(curves))
    print_path(target)


def told(one: "Measured") -> list[str]:
    """The images that it was measured on, in words, and the names of the classes where they are few."""
    classes = one.images[0] if one.images else ()
    return [one.measured_on, *([", ".join(classes)] if 0 < len(classes) <= SHOWN else [])]


def scores(
    run: Run = None,
    far: Far = None,
    split: Split = "test",
    classes: Classes = None,
    flip: Flip = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """The scores of genuine and impostor pairs, with the thresholds at some false accept rates.

    Examples:
        cifarnet visualize scores
        cifarnet visualize scores runs/latest --far 1e-2 --out scores.pdf
    """
    from cifarnet.analysis.plots.verification import densities_of, draw_scores
    from cifarnet.cli import inputs

    fars = parse_rates("--far", far, "1e-2,1e-3")
    out, data_out = figures.asked_figure(out, overwrite), figures.numbers_path(data_out, overwrite)
    one, heading, home = measure(run, inputs.Wanted(split, classes, data_dir, device), flip, fars)
    found = one.found
    target = out or figures.unnamed(f"{figures.of_split('scores', split)}.png", overwrite, home)
    draw_scores(found.genuine, found.impostor, found.points, target, title if title is not None else heading)
    edges, densities = densities_of(found.genuine, found.impostor)
    thresholds = {f"{point.far:g}": point.threshold for point in found.points}
    figures.write_numbers(data_out, {"edges": edges, **densities, "thresholds": thresholds})
    print_path(target)


def measure(
    run: Path | None, wanted: "Wanted", flip: bool, far: Sequence[float] | None
) -> "tuple[Measured, str, Path | None]":
    """All pairs of a run's split, the heading of its figure, and the folder for it (see `home_of_images`).

    Args:
        flip: mirrored images are added; far: as `Asked`.

    Raises:
        Refused: no such run; else as `open_wanted` and `verify_split`.
    """
    from cifarnet.analysis.verify_images import Asked, verify_split
    from cifarnet.cli.headline import say_model
    from cifarnet.cli.inputs import open_wanted
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import need_checkpoint

    path = need_checkpoint(run)
    model, info = load_model(path, of_features=True)
    say_model(messages(), path, model, info, named=run is not None)
    opened = open_wanted(path, model, info, wanted)
    with messages().status("comparing all pairs"):
        found = verify_split(opened, wanted.classes, Asked(far), flip)
    return found, f"{title_of(info.config)}\n{found.measured_on}", figures.home_of_images(opened)
