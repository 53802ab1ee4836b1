"""`cifarnet visualize samples`: some images of each class, of the data of a run or of a data set."""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli import figures
from cifarnet.cli.common import given_options, messages, print_path
from cifarnet.cli.figure_command import DataOut, Seed, Title
from cifarnet.cli.run_option import Run
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused


def samples(
    context: typer.Context,
    run: Run = None,
    dataset: Annotated[
        str, typer.Option(help="cifar10, cifar100, digits, folder, csv, parquet, webdataset.")
    ] = TrainConfig.dataset,
    data_dir: Annotated[str | None, typer.Option(help="Where the data is (default: the user's cache).")] = None,
    each: Annotated[int, typer.Option(min=1, max=1000, help="Images a class.")] = 10,
    split: Annotated[str, typer.Option(help="train or test; of a run val too.")] = "train",
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the images, pixels.")
    ] = TrainConfig.image_size,
    seed: Seed = TrainConfig.seed,
    out: Annotated[
        Path | None, typer.Option(help="PNG, SVG or PDF (default: samples.png, of a run in its folder).")
    ] = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """Some images of each class: of a run's data as that run takes it, or of a data set (without RUN).

    Examples:
        cifarnet visualize samples runs/latest
        cifarnet visualize samples --dataset digits --each 5 --out digits.png
    """
    from cifarnet.analysis.plots import grid as picture
    from cifarnet.cli.inputs import open_samples
    from cifarnet.cli.progress import load_shown

    if run is not None and (given_options(context) & {"dataset", "image_size"}):
        raise Refused("RUN", "says itself what the data is", "drop --dataset and --image-size")
    out, data_out = figures.asked_figure(out, overwrite), figures.numbers_path(data_out, overwrite)
    home = None
    if run is not None:
        opened = open_samples(run, data_dir, split, 0, seed, "cpu")
        part, classes, name = opened.loader.split, opened.info.classes, opened.dataset
        home = figures.home_of_images(opened)
    else:
        if split not in ("train", "test"):
            raise Refused("--split", f"'{split}' is not known", "choose train or test")
        data = load_shown(messages(), dataset, data_dir, image_size=image_size)
        part, classes, name = data.train if split == "train" else data.test, data.classes, dataset
    target = out or figures.unnamed(f"{figures.of_split('samples', split, 'train')}.png", overwrite, home)
    chosen = picture.choose_samples(part, len(classes), each, seed)
    picture.draw_samples(chosen, classes, target, f"{name} {split}" if title is None else title)
    figures.write_numbers(data_out, {"indices": chosen.indices})
    print_path(target)
