"""`cifarnet visualize FIGURE`: a run -> one figure of the report, and the numbers behind it on request.

To add a figure of a run's images: a file in analysis/plots that draws it, and one function below `@figure`.
"""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.analysis.plots.titles import has_own_loss, title_of
from cifarnet.cli import figures, verify_figures
from cifarnet.cli.common import messages, print_path
from cifarnet.cli.figure_command import DataOut, Numbers, Title, Views, figure
from cifarnet.cli.grammar import Group, add
from cifarnet.cli.quality import quality_figure
from cifarnet.cli.run_option import Runs
from cifarnet.cli.visualize_samples import samples
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

    A training loss with a margin in it is no cross-entropy, unlike the test loss: it has a panel of its own.

    Examples:
        cifarnet visualize curves
        cifarnet visualize curves runs/* --out curves.svg
    """
    from cifarnet.analysis.plots import curves as picture
    from cifarnet.storage.run_files import read_metrics
    from cifarnet.storage.run_folder import RunFolder
    from cifarnet.storage.run_names import home_of, names_apart
    from cifarnet.storage.runs import latest

    newest = latest()
    if not runs and newest is None:
        raise Refused("runs", "there is no run yet (no runs/latest)", "train one, or name a run folder")
    chosen = runs or ([newest] if newest else [])
    folders = [path.parent if path.is_file() else path for path in chosen]
    homes = [home_of(folder / "metrics.jsonl") for folder in folders]
    target = figures.asked_figure(out, overwrite) or figures.unnamed("curves.png", overwrite, *homes)
    data_out = figures.numbers_path(data_out, overwrite)
    records, titles, own = {}, [], []
    for name, folder in zip(names_apart(folders), folders, strict=True):
        if not folder.is_dir():
            raise Refused(str(folder), "there is no such run", "name a run folder")
        records[name], warnings = read_metrics(RunFolder(folder).metrics)
        for warning in warnings:
            messages().remark("warning", warning)
        if RunFolder(folder).config.exists():
            config = RunFolder(folder).read_config()
            titles.append(title_of(config))
            own += [name] if has_own_loss(config) else []
    heading = title if title is not None else (titles[0] if len(set(titles)) == 1 else "")
    picture.draw(records, target, heading, own)
    figures.write_numbers(data_out, picture.numbers(records))
    print_path(target)


add(app, "curves", curves)


@figure(app, samples=None)
def confusion(views: Views) -> Numbers:
    """The confusion matrix, in percent of each true class; of several runs a panel each.

    Examples:
        cifarnet visualize confusion
        cifarnet visualize confusion runs/latest --split train --out c.pdf
    """
    from cifarnet.analysis.plots import confusion as picture
    from cifarnet.engine.metrics import confusion_matrix

    classes = views.classes
    counts = {
        name: confusion_matrix(view.outputs.labels, view.outputs.predictions, len(classes))
        for name, view in views.panels.items()
    }
    picture.draw(counts, classes, views.path, views.heading)
    return {name: {"counts": matrix, "percent": picture.numbers(matrix)} for name, matrix in counts.items()}


@figure(app, samples=100, several=False)
def grid(views: Views) -> Numbers:
    """Images with what the model takes them for: green frame right, red frame wrong.

    Examples:
        cifarnet visualize grid --samples 50
    """
    from cifarnet.analysis.plots import grid as picture

    found, images = views.only.outputs, views.only.opened.images
    picture.draw(images, found.labels, found.predictions, views.classes, views.path, views.heading)
    return {"": {"labels": found.labels, "predictions": found.predictions, "logits": found.logits}}


add(app, "samples", samples)
add(app, "det", verify_figures.det)
add(app, "scores", verify_figures.scores)

Method = Annotated[str, typer.Option(help="umap, tsne or pca.", metavar="umap|tsne|pca")]
Neighbors = Annotated[int, typer.Option(min=2, max=1_000_000, help="n_neighbors of UMAP, perplexity of t-SNE.")]
Metric = Annotated[str, typer.Option(help="auto (cosine for angular losses), cosine, euclidean.")]


@figure(app, samples=500, file="{method}")
def umap(views: Views, method: Method = "umap", neighbors: Neighbors = 6, metric: Metric = "auto") -> Numbers:
    """Features in the plane: which classes lie together, which apart; of several runs a panel each, at one scale.

    A PCA of angles and one of distances have no scale in common: each panel then has its own.

    Examples:
        cifarnet visualize umap
        cifarnet visualize umap runs/* --method tsne --out tsne.png
    """
    from cifarnet.analysis.embedding import METHODS, project
    from cifarnet.analysis.plots import embedding as picture

    classes, metrics = views.classes, []
    panels: dict[str, picture.Points] = {}
    for name, view in views.panels.items():
        found, count = view.outputs, len(view.outputs.labels)
        metrics.append(metric if metric != "auto" else ("cosine" if view.opened.angular else "euclidean"))
        note = " (its import compiles for some seconds)" if method == "umap" and not panels else ""
        messages().say(f"{method} of {plural(count, 'point')}, {metrics[-1]} metric{note}")
        points = project(found.features, method, metric=metrics[-1], neighbors=neighbors, seed=views.seed)
        panels[name] = (points, found.labels.numpy())
    shown = metrics[0] if len(set(metrics)) == 1 else ", ".join(metrics)
    detail = f"{METHODS[method]} of {plural(count, f'{views.split} image')}, {shown}"
    detail += f", {neighbors} neighbours" if method == "umap" else ""
    one_scale = method != "pca" or len(set(metrics)) == 1  # of PCA alone is the unit that of the features
    detail += "" if one_scale else ", each at its own scale"
    heading = views.headed()
    picture.draw(panels, classes, views.path, f"{heading}\n{detail}" if heading else detail, one_scale)
    return {name: {"points": points, "labels": labels} for name, (points, labels) in panels.items()}


Project = Annotated[bool, typer.Option("--project", help="Split the last layer of any model in two.")]
Dims = Annotated[int, typer.Option(min=2, max=3, help="With --project: 2 for a circle, 3 for a globe.")]


@figure(app, samples=500)
def sphere(views: Views, project: Project = False, dims: Dims = 3) -> Numbers:
    """Features and class prototypes on the circle or the globe (train with --embed-dim 2 or 3, or use --project).

    Of several runs a panel each; the lengths of all features are divided by one number.

    Examples:
        cifarnet visualize sphere --project
        cifarnet visualize sphere --project --dims 2 --out circle.png
    """
    from cifarnet.analysis.embedding import on_sphere
    from cifarnet.analysis.plots import sphere as picture

    classes = views.classes
    panels: dict[str, picture.Points] = {}
    for name, view in views.panels.items():
        drawn, note = on_sphere(view.opened.model, view.outputs, dims if project else 0)
        if note:
            messages().say(note)
        panels[name] = (drawn, view.outputs.labels.numpy())
    if len({drawn.features.shape[1] for drawn, _ in panels.values()}) > 1:
        raise Refused("visualize sphere", "of some runs it is a circle, of others a globe", "add --project with --dims")
    picture.draw(panels, classes, views.path, views.heading)
    return {
        name: {"features": drawn.features, "prototypes": drawn.prototypes, "labels": labels, "lost": drawn.lost}
        for name, (drawn, labels) in panels.items()
    }


@figure(app, samples=0)
def angles(views: Views) -> Numbers:
    """The work of a margin: angles to the own and the nearest other prototype, prototype cosines, feature lengths.

    Of several runs a row each, with the same axes.

    Examples:
        cifarnet visualize angles
        cifarnet visualize angles runs/* --data-out angles.json
    """
    from cifarnet.analysis.embedding import measure_angles
    from cifarnet.analysis.plots import angles as picture

    measured = {
        name: measure_angles(view.outputs.features, view.outputs.labels, view.opened.model.head.prototypes().cpu())
        for name, view in views.panels.items()
    }
    picture.draw(measured, views.path, views.heading)
    return {name: picture.numbers(one) for name, one in measured.items()}


@figure(app, samples=0)
def calibration(views: Views) -> Numbers:
    """How often the model is right where it says how sure it is (a reliability diagram); of several runs a panel each.

    Examples:
        cifarnet visualize calibration
        cifarnet visualize calibration runs/* --out calibration.pdf
    """
    from cifarnet.analysis.plots import calibration as picture

    found = {
        name: picture.numbers((view.outputs.logits, view.outputs.labels, view.opened.info.calibration))
        for name, view in views.panels.items()
    }
    picture.draw(found, views.path, views.heading)
    return found


add(app, "quality", quality_figure)
