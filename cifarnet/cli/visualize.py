"""`cifarnet visualize FIGURE`: a run -> one figure of the report, and the numbers behind it on request."""

from pathlib import Path
from typing import Annotated

import typer

from cifarnet.cli.common import messages, printable
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused

app = typer.Typer(help="Draw a figure of a run; each prints the path it wrote.", no_args_is_help=True)

Run = Annotated[
    Path | None, typer.Argument(help="A run folder or checkpoint (default: runs/latest).", show_default=False)
]
Out = Annotated[Path | None, typer.Option(help="PNG, SVG or PDF by its suffix (default: beside the checkpoint).")]
DataOut = Annotated[Path | None, typer.Option(help="Also write the numbers behind the figure (.json or .npz).")]
DataDir = Annotated[str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")]
Title = Annotated[str | None, typer.Option(help="What stands above (default: model, loss, data set).")]
Split = Annotated[str, typer.Option(help="test, train, or val (what the run held out).")]
Seed = Annotated[int, typer.Option(min=0, help="Of the choice of images and the projection.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Samples = Annotated[int, typer.Option(min=0, help="Images, as many of each class (0: all of the split).")]


@app.command()
def curves(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders (default: runs/latest).", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG, SVG or PDF (default: curves.png, of one run in its folder).")
    ] = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """Accuracy, loss, learning rate and gradient norms over the epochs; several runs in one figure."""
    from cifarnet.analysis.plots import curves as picture
    from cifarnet.cli import figures
    from cifarnet.storage.run_folder import LATEST, RunFolder, read_metrics

    if not runs and not LATEST.exists():
        raise Refused("visualize", "there is no run yet (no runs/latest)", "train one, or name a run folder")
    folders = [path.parent if path.is_file() else path for path in runs or [LATEST]]
    target = figures.destination(out, folders[0] / "x" if len(folders) == 1 else Path("x"), "curves")
    figures.check_numbers_path(data_out)
    records, titles = {}, []
    for folder in folders:
        if not folder.is_dir():
            raise Refused(str(folder), "there is no such run", "name a run folder")
        name = folder.resolve().name
        records[str(folder) if name in records else name], warnings = read_metrics(RunFolder(folder).metrics)
        for warning in warnings:
            messages().print(f"warning: {printable(warning)}", markup=False)
        if RunFolder(folder).config.exists():
            titles.append(figures.title_of(RunFolder(folder).read_config()))
    heading = title if title is not None else (titles[0] if len(set(titles)) == 1 else "")
    picture.draw(records, target, heading)
    figures.write_numbers(data_out, picture.numbers(records))
    print(target)


@app.command()
def confusion(
    run: Run = None,
    split: Split = "test",
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """The confusion matrix, in percent of each true class."""
    from cifarnet.analysis.plots import confusion as picture
    from cifarnet.cli import figures, inputs
    from cifarnet.engine.metrics import confusion_matrix

    target = figures.destination(out, inputs.need_checkpoint(run), "confusion")
    figures.check_numbers_path(data_out)
    opened = inputs.open_model(run, data_dir, split, 0, 0, device)
    images = inputs.embed_images(opened)
    matrix = confusion_matrix(images.labels, images.predictions, len(opened.info.classes))
    picture.draw(matrix, opened.info.classes, target, title or figures.title_of(opened.info.config, split))
    figures.write_numbers(data_out, {"counts": matrix, "percent": picture.numbers(matrix)})
    print(target)


@app.command()
def grid(
    run: Run = None,
    samples: Samples = 100,
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """Images with what the model takes them for: green frame right, red frame wrong."""
    from cifarnet.analysis.plots import grid as picture
    from cifarnet.cli import figures, inputs

    target = figures.destination(out, inputs.need_checkpoint(run), "grid")
    figures.check_numbers_path(data_out)
    opened = inputs.open_model(run, data_dir, split, samples, seed, device)
    images = inputs.embed_images(opened)
    heading = title or figures.title_of(opened.info.config, split)
    picture.draw(opened.images, images.labels, images.predictions, opened.info.classes, target, heading)
    figures.write_numbers(
        data_out, {"labels": images.labels, "predictions": images.predictions, "logits": images.logits}
    )
    print(target)


@app.command()
def samples(
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100, digits, folder, webdataset.")] = TrainConfig.dataset,
    data_dir: Annotated[str | None, typer.Option(help="Where the data is (default: the user's cache).")] = None,
    each: Annotated[int, typer.Option(min=1, help="Images a class.")] = 10,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the images, pixels.")
    ] = TrainConfig.image_size,
    seed: Seed = TrainConfig.seed,
    out: Annotated[Path, typer.Option(help="PNG, SVG or PDF.")] = Path("samples.png"),
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """Some images of each class of a data set."""
    from cifarnet.analysis.plots import grid as picture
    from cifarnet.cli import figures
    from cifarnet.cli.progress import load_shown

    target = figures.destination(out, Path("x"), "samples")
    figures.check_numbers_path(data_out)
    if split not in ("train", "test"):
        raise Refused("--split", f"'{split}' is not known", "choose train or test")
    data = load_shown(messages(), dataset, data_dir, image_size=image_size)
    part = data.train if split == "train" else data.test
    chosen = picture.choose_samples(part, len(data.classes), each, seed)
    heading = title or f"{figures.DATASET_NAMES.get(dataset, dataset)}, {split} images"
    picture.draw_samples(chosen, data.classes, target, heading)
    figures.write_numbers(data_out, {"indices": chosen.indices})
    print(target)


@app.command()
def umap(
    run: Run = None,
    method: Annotated[str, typer.Option(help="umap, tsne or pca.", metavar="umap|tsne|pca")] = "umap",
    samples: Samples = 500,
    neighbors: Annotated[int, typer.Option(min=2, help="n_neighbors of UMAP, perplexity of t-SNE.")] = 6,
    metric: Annotated[str, typer.Option(help="auto (cosine for angular losses), cosine, euclidean.")] = "auto",
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """Features in the plane: which classes lie together, which apart."""
    from cifarnet.analysis.embedding import METHODS, METRICS, project
    from cifarnet.analysis.plots import embedding as picture
    from cifarnet.cli import figures, inputs

    if method not in METHODS:
        raise Refused("--method", f"'{method}' is not known", f"choose from {', '.join(METHODS)}")
    if metric not in ("auto", *METRICS):
        raise Refused("--metric", f"'{metric}' is not known", f"choose from auto, {', '.join(METRICS)}")
    target = figures.destination(out, inputs.need_checkpoint(run), method)
    figures.check_numbers_path(data_out)
    opened = inputs.open_model(run, data_dir, split, samples, seed, device)
    images = inputs.embed_images(opened)
    chosen = metric if metric != "auto" else ("cosine" if opened.angular else "euclidean")
    count = len(images.labels)
    note = " (its import compiles for some seconds)" if method == "umap" else ""
    messages().print(f"{method} of {count} points, {chosen} metric{note}")
    points = project(images.features, method, metric=chosen, neighbors=neighbors, seed=seed)
    name = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}[method]
    detail = f"{name} of {count} {split} images, {chosen}" + (f", {neighbors} neighbours" if method == "umap" else "")
    heading = f"{title or figures.title_of(opened.info.config)}\n{detail}"
    picture.draw(points, images.labels.numpy(), opened.info.classes, target, heading)
    figures.write_numbers(data_out, {"points": points, "labels": images.labels})
    print(target)


@app.command()
def sphere(
    run: Run = None,
    project: Annotated[bool, typer.Option("--project", help="Split the last layer of any model in two.")] = False,
    dims: Annotated[int, typer.Option(min=2, max=3, help="With --project: 2 for a circle, 3 for a globe.")] = 3,
    samples: Samples = 500,
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """Features and class prototypes on the circle or the globe (train with --embed-dim 2 or 3, or use --project)."""
    from cifarnet.analysis.embedding import on_sphere
    from cifarnet.analysis.plots import sphere as picture
    from cifarnet.cli import figures, inputs

    target = figures.destination(out, inputs.need_checkpoint(run), "sphere")
    figures.check_numbers_path(data_out)
    opened = inputs.open_model(run, data_dir, split, samples, seed, device)
    images = inputs.embed_images(opened)
    drawn, note = on_sphere(opened.model, images, dims if project else 0)
    if note:
        messages().print(note)
    heading = title or figures.title_of(opened.info.config, split)
    picture.draw(drawn, images.labels.numpy(), opened.info.classes, target, heading)
    numbers = {"features": drawn.features, "prototypes": drawn.prototypes, "labels": images.labels, "lost": drawn.lost}
    figures.write_numbers(data_out, numbers)
    print(target)


@app.command()
def angles(
    run: Run = None,
    samples: Samples = 0,
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
) -> None:
    """What a margin does: angles to the own and the nearest other prototype, prototype cosines, feature lengths."""
    from cifarnet.analysis.embedding import measure_angles
    from cifarnet.analysis.plots import angles as picture
    from cifarnet.cli import figures, inputs

    target = figures.destination(out, inputs.need_checkpoint(run), "angles")
    figures.check_numbers_path(data_out)
    opened = inputs.open_model(run, data_dir, split, samples, seed, device)
    images = inputs.embed_images(opened)
    measured = measure_angles(images.features, images.labels, opened.model.head.prototypes().cpu())
    picture.draw(measured, target, title or figures.title_of(opened.info.config, split))
    figures.write_numbers(data_out, picture.numbers(measured))
    print(target)
