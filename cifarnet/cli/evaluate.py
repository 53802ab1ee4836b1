"""`cifarnet eval`: a trained model and a split -> every score, the class table, the confusion matrix."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli.common import messages, print_json, results, write_rows
from cifarnet.core.errors import Failed, Refused

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cifarnet.data import Loader
    from cifarnet.models.checkpoint import ModelInfo
    from cifarnet.models.classifier import Classifier


def evaluate(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder or checkpoint (default: runs/latest).", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, digits, folder, webdataset (default: the run's).")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")
    ] = None,
    split: Annotated[str, typer.Option(help="test, train, or val (what the run held out).")] = "test",
    tta: Annotated[bool, typer.Option("--tta", help="Average each image's logits with its mirror image's.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32, bf16 (default: the run's, or auto if slower here).")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Where the confusion matrix is drawn (default: beside the checkpoint).")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write precision, recall and F1 of each class.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write label, prediction and probabilities of each image (CSV).")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a trained model: accuracy, precision, recall, F1, AUROC, AUPRC, calibration, confusion."""
    from cifarnet.engine.metrics import collect_logits, measures_few, score
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.run_folder import find_checkpoint

    path = find_checkpoint(run)
    if path is None:
        raise Refused("eval", "there is no run yet (no runs/latest)", "train one, or name a run folder or checkpoint")
    model, info = load_model(path, of_features=True)
    few = measures_few(info.config, len(info.classes))
    check_details(info, few, tta, asked=bool(csv or predictions or figure))
    loader, target, chosen = open_split(info, dataset, data_dir, split, batch_size, device, precision)
    name = dataset or info.config.dataset
    document = {"checkpoint": str(path), "dataset": name, "split": split, "precision": chosen, "tta": tta}
    with messages().status(f"evaluating {path} on {len(loader.split):,} {'samples' if few else 'images'}"):
        if few:
            document |= measure_few(model.to(target), loader, target, chosen)
        else:
            logits, labels = collect_logits(model.to(target), loader.epoch(0), target, chosen, tta)
            document |= score(logits, labels, info.classes).to_dict()
    drawn = None
    if not few:
        drawn = figure or path.parent / ("confusion.png" if split == "test" else f"confusion-{split}.png")
        title = title_of(replace(info.config, dataset=name), split)
        draw_confusion(document, drawn, title, asked=figure is not None)
        if csv is not None:
            write_classes(csv, document)
        if predictions is not None:
            write_predictions(predictions, logits, labels, info.classes)
    print_json(document) if json_output else print_scores(document, drawn)


def check_details(info: "ModelInfo", few: bool, tta: bool, asked: bool) -> None:
    """Of many classes only loss and accuracy (`few`) are measured.

    Raises:
        Refused: more was `asked` for, or test-time flips of what has no images.
    """
    from cifarnet.core.config import SYNTHETIC

    if tta and info.config.dataset == SYNTHETIC:
        raise Refused("--tta", f"{SYNTHETIC} has no images to mirror", "leave it out")
    if few and (asked or tta):
        fix = "leave --csv, --predictions, --figure and --tta out"
        raise Refused("eval", f"of {len(info.classes):,} classes only loss and accuracy are measured", fix)


def measure_few(model: "Classifier", loader: "Loader", device: "torch.device", precision: str) -> dict[str, Any]:
    """Loss and accuracy of a model of many classes."""
    from cifarnet.engine.metrics import few_scores, measure_many

    return few_scores(*measure_many(model, loader.epoch(0), device, precision)).to_dict()


def open_split(
    info: "ModelInfo",
    dataset: str | None,
    data_dir: str | None,
    split: str,
    batch_size: int,
    device: str,
    precision: str | None,
) -> tuple["Loader", "torch.device", str]:
    """The loader of a split as the model wants its images, the device and the precision.

    Raises:
        Refused: an unknown split, classes that are not the model's, a run that held nothing out.
    """
    from cifarnet.cli.progress import load_shown
    from cifarnet.core.devices import has_bf16, pick_device, pick_precision
    from cifarnet.data import Identities, Loader, hold_out

    config = info.config
    if split not in ("test", "train", "val"):
        raise Refused("--split", f"'{split}' is not known", "choose from test, train, val")
    if split == "val" and config.val_fraction == 0:
        raise Refused("--split", "the run held no validation images out", "choose test or train")
    target = pick_device(device)
    name = dataset or config.dataset
    options = {"image_size": config.image_size, "coarse": config.coarse, "identities": Identities.of(config)}
    data = load_shown(messages(), name, data_dir or config.data_dir, **options)
    if data.classes != info.classes:
        why = f"its {len(data.classes)} classes are not the model's {len(info.classes)}"
        raise Refused("--dataset", why, "name the data set that the model was trained on")
    images = data.test if split == "test" else data.train
    if split != "test" and config.val_fraction > 0:
        train, validation = hold_out(data.train, config.val_fraction, config.seed)
        images = train if split == "train" else validation
    loader = Loader(images, batch_size, target, mean=info.mean, std=info.std, shuffle=False)
    own = "auto" if config.precision == "bf16" and not has_bf16(target) else config.precision
    return loader, target, pick_precision(precision or own, target)


def draw_confusion(scores: dict[str, Any], path: Path, title: str, *, asked: bool) -> None:
    """Draws the confusion matrix; where the user did not name the file, one that cannot be written is only warned of."""
    from cifarnet.analysis.plots import confusion

    try:
        confusion.draw(scores["confusion"], [row["name"] for row in scores["classes"]], path, title=title)
    except Failed as error:  # beside a checkpoint on a medium that cannot be written: the scores are good all the same
        if asked:
            raise
        messages().print(f"[yellow]warning:[/] {error}")


def print_scores(document: dict[str, Any], figure: Path | None) -> None:
    """The tables of an evaluation, on stdout; without a figure (many classes) the few scores alone."""
    from cifarnet.cli import tables

    console = results()
    for name, value in tables.score_rows(document):
        console.print(f"[dim]{name:<32}[/]{value}")
    if figure is None:
        return
    console.print(tables.class_table(document))
    if len(document["classes"]) <= 20:
        console.print(tables.confusion_table(document))
    console.print(f"[dim]{'confusion matrix':<32}[/]{figure}", soft_wrap=True)


def write_classes(path: Path, scores: dict[str, Any]) -> None:
    """A line a class: precision, recall, F1, images."""
    rows = [[row["name"], row["precision"], row["recall"], row["f1"], row["images"]] for row in scores["classes"]]
    write_rows(path, ["class", "precision", "recall", "f1", "images"], rows)


def write_predictions(path: Path, logits: "Tensor", labels: "Tensor", classes: Sequence[str]) -> None:
    """A line an image, in the split's order: label, prediction, probability of each class."""
    probabilities = logits.cpu().double().softmax(dim=1)
    best = probabilities.argmax(dim=1).tolist()
    rows = [
        [index, classes[label], classes[predicted], *row]
        for index, (label, predicted, row) in enumerate(zip(labels.tolist(), best, probabilities.tolist(), strict=True))
    ]
    write_rows(path, ["index", "label", "prediction", *classes], rows)
