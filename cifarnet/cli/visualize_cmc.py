"""`cifarnet visualize cmc`: a split of a run, some of its classes enrolled -> CMC, and DIR over FPIR."""

from typing import Annotated

import typer

from cifarnet.cli import figures
from cifarnet.cli.common import messages, print_path
from cifarnet.cli.figure_command import DataDir, DataOut, Device, Out, Seed, Split, Title
from cifarnet.cli.run_option import Run
from cifarnet.cli.verify_figures import Classes
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused, plural


def cmc(
    run: Run = None,
    classes: Classes = None,
    enrolled: Annotated[int, typer.Option(min=1, max=10**6, help="Images enrolled of a class.")] = 5,
    strangers: Annotated[float, typer.Option(min=0, max=0.99, help="Part of the classes that is not enrolled.")] = 0.5,
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """Identification in a gallery of some of a split's classes: rank of the mate (CMC), and DIR over FPIR.

    Examples:
        cifarnet visualize cmc
        cifarnet visualize cmc runs/latest --enrolled 1 --data-out cmc.json
    """
    from cifarnet.analysis.identification.measure import identify_split
    from cifarnet.analysis.open_classes import CLASSES
    from cifarnet.analysis.plots import identification as picture
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.analysis.unit_embeddings import embed_classes
    from cifarnet.cli import inputs

    if classes is not None and classes not in CLASSES:
        raise Refused("--classes", f"'{classes}' is not known", f"choose from {', '.join(CLASSES)}")
    out, data_out = figures.asked_figure(out, overwrite), figures.numbers_path(data_out, overwrite)
    opened = inputs.open_samples(run, data_dir, split, 0, seed, device)
    with messages().status("embedding"):
        found = embed_classes(opened, classes)
    done = identify_split(found.vectors, found.labels, enrolled, strangers, seed)
    detail = (
        f"{plural(enrolled, 'image')} each of {plural(len(done.templates), 'class')} enrolled, of {len(found.classes)}"
    )
    heading = title_of(opened.info.config, split) if title is None else title
    name = f"{figures.of_split('cmc', split)}.png"
    target = out or figures.unnamed(name, overwrite, figures.home_of_images(opened))
    picture.draw(done.cmc, done.open_set, done.points, target, f"{heading}\n{detail}".lstrip())
    figures.write_numbers(data_out, picture.numbers(done.cmc, done.open_set, done.points))
    print_path(target)
