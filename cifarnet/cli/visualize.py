"""`cifarnet visualize FIGURE`: a run -> one figure of the report, and the numbers behind it on request.

To add a figure of a run's images: a file in analysis/plots that draws it, and one function below `@figure`.
"""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.analysis.plots.titles import dataset_title, title_of
from cifarnet.cli import figures, verify_figures
from cifarnet.cli.common import messages, print_path
from cifarnet.cli.figure_command import DataOut, Numbers, Seed, Title, View, figure
from cifarnet.cli.grammar import Group, add
from cifarnet.cli.quality import quality_figure
from cifarnet.cli.run_option import Runs
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused, plural

HELP = """Draw a figure of a run; each prints the path it wrote.

Examples:
    cifarnet visualize curves                        # of the newest run
    cifarnet visualize umap runs/latest --out umap.svg
"""
app = typer.Typer(cls=Group, help=HELP)


def curves(
    runs: Runs = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG, SVG or PDF (default: curves.png, of one run in its folder).")
    ] = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """Accuracy, loss, learning rate and gradient norms over the epochs; several runs in one figure.

    Examples:
        cifarnet visualize curves
        cifarnet visualize curves runs/* --out curves.svg
    """
    from cifarnet.analysis.plots import curves as picture
    from cifarnet.storage.run_files import read_metrics
    from cifarnet.storage.run_folder import RunFolder
    from cifarnet.storage.runs import latest

    newest = latest()
    if not runs and newest is None:
        raise Refused("visualize", "there is no run yet (no runs/latest)", "train one, or name a run folder")
    chosen = runs or ([newest] if newest else [])
    folders = [path.parent if path.is_file() else path for path in chosen]
    target = figures.destination(out, folders[0] / "x" if len(folders) == 1 else Path("x"), "curves", overwrite)
    data_out = figures.numbers_path(data_out, overwrite)
    records, titles = {}, []
    for folder in folders:
        if not folder.is_dir():
            raise Refused(str(folder), "there is no such run", "name a run folder")
        name = folder.resolve().name
        records[str(folder) if name in records else name], warnings = read_metrics(RunFolder(folder).metrics)
        for warning in warnings:
            messages().remark("warning", warning)
        if RunFolder(folder).config.exists():
            titles.append(title_of(RunFolder(folder).read_config()))
    heading = title if title is not None else (titles[0] if len(set(titles)) == 1 else "")
    picture.draw(records, target, heading)
    figures.write_numbers(data_out, picture.numbers(records))
    print_path(target)


add(app, "curves", curves)


@figure(app, samples=None)
def confusion(view: View) -> Numbers:
    """The confusion matrix, in percent of each true class.

    Examples:
        cifarnet visualize confusion
        cifarnet visualize confusion runs/latest --split train --out confusion.pdf
    """
    from cifarnet.analysis.plots import confusion as picture
    from cifarnet.engine.metrics import confusion_matrix

    matrix = confusion_matrix(view.outputs.labels, view.outputs.predictions, len(view.classes))
    picture.draw(matrix, view.classes, view.path, view.heading)
    return {"counts": matrix, "percent": picture.numbers(matrix)}


@figure(app, samples=100)
def grid(view: View) -> Numbers:
    """Images with what the model takes them for: green frame right, red frame wrong.

    Examples:
        cifarnet visualize grid --samples 50
    """
    from cifarnet.analysis.plots import grid as picture

    found = view.outputs
    picture.draw(view.opened.images, found.labels, found.predictions, view.classes, view.path, view.heading)
    return {"labels": found.labels, "predictions": found.predictions, "logits": found.logits}


def samples(
    dataset: Annotated[
        str, typer.Option(help="cifar10, cifar100, digits, folder, csv, parquet, webdataset.")
    ] = TrainConfig.dataset,
    data_dir: Annotated[str | None, typer.Option(help="Where the data is (default: the user's cache).")] = None,
    each: Annotated[int, typer.Option(min=1, max=1000, help="Images a class.")] = 10,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the images, pixels.")
    ] = TrainConfig.image_size,
    seed: Seed = TrainConfig.seed,
    out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF (default: samples.png).")] = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: figures.Overwrite = False,
) -> None:
    """Some images of each class of a data set.

    Examples:
        cifarnet visualize samples --dataset digits
        cifarnet visualize samples --dataset digits --each 5 --out digits.png
    """
    from cifarnet.analysis.plots import grid as picture
    from cifarnet.cli.progress import load_shown

    target = figures.destination(out, Path("x"), "samples", overwrite)
    data_out = figures.numbers_path(data_out, overwrite)
    if split not in ("train", "test"):
        raise Refused("--split", f"'{split}' is not known", "choose train or test")
    data = load_shown(messages(), dataset, data_dir, image_size=image_size)
    part = data.train if split == "train" else data.test
    chosen = picture.choose_samples(part, len(data.classes), each, seed)
    heading = title or f"{dataset_title(dataset)} {split}"
    picture.draw_samples(chosen, data.classes, target, heading)
    figures.write_numbers(data_out, {"indices": chosen.indices})
    print_path(target)


add(app, "samples", samples)
add(app, "det", verify_figures.det)
add(app, "scores", verify_figures.scores)

Method = Annotated[str, typer.Option(help="umap, tsne or pca.", metavar="umap|tsne|pca")]
Neighbors = Annotated[int, typer.Option(min=2, max=1_000_000, help="n_neighbors of UMAP, perplexity of t-SNE.")]
Metric = Annotated[str, typer.Option(help="auto (cosine for angular losses), cosine, euclidean.")]


@figure(app, samples=500, file="{method}")
def umap(view: View, method: Method = "umap", neighbors: Neighbors = 6, metric: Metric = "auto") -> Numbers:
    """Features in the plane: which classes lie together, which apart.

    Examples:
        cifarnet visualize umap
        cifarnet visualize umap runs/latest --method tsne --neighbors 30
    """
    from cifarnet.analysis.embedding import METHODS, project
    from cifarnet.analysis.plots import embedding as picture

    found, count = view.outputs, len(view.outputs.labels)
    chosen = metric if metric != "auto" else ("cosine" if view.opened.angular else "euclidean")
    note = " (its import compiles for some seconds)" if method == "umap" else ""
    messages().say(f"{method} of {plural(count, 'point')}, {chosen} metric{note}")
    points = project(found.features, method, metric=chosen, neighbors=neighbors, seed=view.seed)
    detail = f"{METHODS[method]} of {plural(count, f'{view.split} image')}, {chosen}"
    detail += f", {neighbors} neighbours" if method == "umap" else ""
    heading = f"{view.title or title_of(view.opened.info.config)}\n{detail}"
    picture.draw(points, found.labels.numpy(), view.classes, view.path, heading)
    return {"points": points, "labels": found.labels}


Project = Annotated[bool, typer.Option("--project", help="Split the last layer of any model in two.")]
Dims = Annotated[int, typer.Option(min=2, max=3, help="With --project: 2 for a circle, 3 for a globe.")]


@figure(app, samples=500)
def sphere(view: View, project: Project = False, dims: Dims = 3) -> Numbers:
    """Features and class prototypes on the circle or the globe (train with --embed-dim 2 or 3, or use --project).

    Examples:
        cifarnet visualize sphere --project
        cifarnet visualize sphere runs/latest --project --dims 2 --out circle.png
    """
    from cifarnet.analysis.embedding import on_sphere
    from cifarnet.analysis.plots import sphere as picture

    labels = view.outputs.labels
    drawn, note = on_sphere(view.opened.model, view.outputs, dims if project else 0)
    if note:
        messages().say(note)
    picture.draw(drawn, labels.numpy(), view.classes, view.path, view.heading)
    return {"features": drawn.features, "prototypes": drawn.prototypes, "labels": labels, "lost": drawn.lost}


@figure(app, samples=0)
def angles(view: View) -> Numbers:
    """The work of a margin: angles to the own and the nearest other prototype, prototype cosines, feature lengths.

    Examples:
        cifarnet visualize angles
        cifarnet visualize angles runs/latest --data-out angles.json
    """
    from cifarnet.analysis.embedding import measure_angles
    from cifarnet.analysis.plots import angles as picture

    prototypes = view.opened.model.head.prototypes().cpu()
    measured = measure_angles(view.outputs.features, view.outputs.labels, prototypes)
    picture.draw(measured, view.path, view.heading)
    return picture.numbers(measured)


add(app, "quality", quality_figure)
