"""`cifarnet eval`: a trained model and a split -> every score, the class table, the confusion matrix."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import Overwrite, asked_figure, home_of_images, of_split, spared, unnamed
from cifarnet.cli.run_option import Run
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from torch import Tensor

    from cifarnet.models.model_info import ModelInfo


def evaluate(
    run: Run = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="cifar10, cifar100, digits, folder, csv, parquet, webdataset (default: the run's)."),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")
    ] = None,
    split: Annotated[str, typer.Option(help="test, train, or val (what the run held out).")] = "test",
    tta: Annotated[
        bool, typer.Option("--tta", help="Average the logits of six views of each image: moved by a pixel, mirrored.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Images a forward pass.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32, bf16 (default: the run's, or auto if slower here).")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Where the confusion matrix is drawn (default: beside the checkpoint, of other images here)."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write precision, recall and F1 of each class.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write label, prediction and probabilities of each image (CSV).")
    ] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a trained model: accuracy, precision, recall, F1, AUROC, AUPRC, calibration, confusion.

    Examples:
        cifarnet eval                                   # the newest run
        cifarnet eval runs/latest --tta --csv classes.csv
    """
    from cifarnet.cli.headline import say_opened
    from cifarnet.cli.progress import load_shown
    from cifarnet.engine.evaluate import measure, open_for_evaluation

    csv, predictions = (check_output(path, overwrite) if path else None for path in (csv, predictions))
    asked = asked_figure(figure, overwrite)
    opened = open_for_evaluation(
        run,
        tta=tta,
        details=bool(csv or predictions or figure),
        dataset=dataset,
        data_dir=data_dir,
        split=split,
        batch_size=batch_size,
        device=device,
        precision=precision,
        load=partial(load_shown, messages()),
    )
    say_opened(messages(), opened, named=run is not None)
    with messages().status("evaluating"):
        found = measure(opened, tta)
    document, drawn = found.document, None
    if found.logits is not None and found.labels is not None:
        name = of_split("confusion", split) + ("-tta" if tta else "")
        drawn = asked or unnamed(f"{name}.png", overwrite, home_of_images(opened))
        title = title_of(replace(opened.info.config, dataset=opened.dataset), split) + (" · six views" if tta else "")
        if not draw_confusion(document, drawn, title, asked=figure is not None):
            drawn = None
        if csv is not None:
            write_classes(csv, document)
        if predictions is not None:
            write_predictions(predictions, found.logits, found.labels, opened.info)
    if json_output:
        print_json(document)
        return
    from cifarnet.cli.tables import print_scores

    print_scores(results(), document, str(drawn or ""))


def draw_confusion(scores: dict[str, Any], path: Path, title: str, *, asked: bool) -> bool:
    """Draws the confusion matrix; True where it is there. One whose file the user did not name is only warned of."""

    def warn(text: str) -> None:
        messages().remark("warning", text)

    # Beside a checkpoint on a medium that cannot be written the scores are good all the same.
    with nullcontext() if asked else spared(path.name, warn):
        from cifarnet.analysis.plots import confusion

        confusion.draw({"": scores["confusion"]}, [row["name"] for row in scores["classes"]], path, title=title)
        return True
    return False


def write_classes(path: Path, scores: dict[str, Any]) -> None:
    """A line a class: precision, recall, F1, images."""
    rows = [[row["name"], row["precision"], row["recall"], row["f1"], row["images"]] for row in scores["classes"]]
    write_rows(path, ["class", "precision", "recall", "f1", "images"], rows)


def write_predictions(path: Path, logits: "Tensor", labels: "Tensor", info: "ModelInfo") -> None:
    """A line an image, in the split's order: label, prediction, probability of each class, calibrated where the model is."""
    from cifarnet.models.calibration import probabilities

    found, classes = probabilities(logits.cpu(), info.calibration), info.classes
    best = found.argmax(dim=1).tolist()
    rows = [
        [index, classes[label], classes[predicted], *row]
        for index, (label, predicted, row) in enumerate(zip(labels.tolist(), best, found.tolist(), strict=True))
    ]
    write_rows(path, ["index", "label", "prediction", *classes], rows)
