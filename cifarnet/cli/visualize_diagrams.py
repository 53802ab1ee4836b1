"""`cifarnet visualize network` and `margins`: diagrams that need no run, from the models and the losses themselves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.cli import figures
from cifarnet.cli.common import print_path
from cifarnet.cli.figure_command import DataOut, Title
from cifarnet.core.config import TrainConfig
from cifarnet.models import ARCHS

MARGINS = ("sphereface", "cosface", "arcface", "adaface")
CLASSES = 10


def network(
    arch: Annotated[str, typer.Option(help=f"One of {', '.join(ARCHS)}.")] = TrainConfig.arch,
    stem: Annotated[
        str, typer.Option(help="First layers of a ResNet: small, cifar or imagenet.", metavar="small|cifar|imagenet")
    ] = TrainConfig.stem,
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the square input, pixels.")
    ] = TrainConfig.image_size,
    out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF (default: network.png).")] = None,
    title: Title = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """The diagram of an architecture: its layers and blocks with shapes and parameters, and the inside of its blocks.

    Examples:
        cifarnet visualize network --arch resnet50
        cifarnet visualize network --arch baseline --out baseline.svg
    """
    target = figures.asked_figure(out, overwrite) or figures.unnamed("network.png", overwrite)
    config = TrainConfig(arch=arch, stem=stem, image_size=image_size).check()
    from cifarnet.analysis.diagram import diagram
    from cifarnet.analysis.plots import network as picture

    picture.draw(diagram(config, CLASSES), target, title)
    print_path(target)


def margins(
    loss: Annotated[
        list[str], typer.Option(help="A loss with a margin; may be given again.", metavar="|".join(MARGINS) + "|…")
    ] = list(MARGINS),  # noqa: B006
    scale: Annotated[float | None, typer.Option(min=0.01, max=1e4, help="s (default: each loss's own).")] = None,
    margin: Annotated[float | None, typer.Option(help="m (default: each loss's own).")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF (default: margins.png).")] = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """The work of each margin: the own class's logit against its angle, and the boundary between two classes that they move.

    Examples:
        cifarnet visualize margins
        cifarnet visualize margins --loss arcface --scale 30 --margin 0.3
    """
    target = figures.asked_figure(out, overwrite) or figures.unnamed("margins.png", overwrite)
    data_out = figures.numbers_path(data_out, overwrite)
    given: dict[str, Any] = {"scale": scale, "margin": margin}
    constants = {name: value for name, value in given.items() if value is not None}
    from cifarnet.analysis.margin_curves import margin_curve
    from cifarnet.analysis.plots import margins as picture

    curves = [margin_curve(name, constants) for name in dict.fromkeys(loss)]
    picture.draw(curves, target, title)
    figures.write_numbers(data_out, picture.numbers(curves))
    print_path(target)
