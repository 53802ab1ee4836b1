"""`cifarnet predict`: image files -> classes and probabilities."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.options import spoken
from cifarnet.core.errors import Failed, plural
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from cifarnet.engine.predict import Prediction


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Image files, or folders with --recursive.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run folder or checkpoint (default: runs/latest, else the model in the package)."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=10**7, help="How many classes to name.")] = 3,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look for images inside folders.")] = False,
    crop: Annotated[
        bool, typer.Option("--crop", help="Cut a centred square out of the image (default: squeeze it).")
    ] = False,
    accept_unknown: Annotated[
        bool, typer.Option("--accept-unknown", help="Name a class even of what looks like none of them.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    csv: Annotated[Path | None, typer.Option(help="Also write a line an image to this file.")] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name what is in pictures: class and probability of each, several files in one batch.

    Examples:
        cifarnet predict photo.jpg
        cifarnet predict photos --recursive --run runs/latest --csv photos.csv
    """
    from cifarnet.cli.headline import calibration_line, say_model
    from cifarnet.core.devices import pick_device
    from cifarnet.data.images.decode import find_images
    from cifarnet.engine.predict import predict_images
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    target = pick_device(device)
    csv = check_output(csv, overwrite) if csv is not None else None
    files = find_images(images, recursive)
    path = default_checkpoint(run)
    model, info = load_model(path)
    console = messages()
    say_model(console, path, model, info, named=run is not None)
    console.say(calibration_line(info.calibration))
    predictions = list(predict_images(model, info, files, top=top, crop=crop, device=target))
    if accept_unknown:
        predictions = [replace(prediction, unknown=None) for prediction in predictions]
    for prediction in predictions:
        for warning in prediction.warnings:
            console.remark("warning", warning)
        if prediction.error:
            console.remark("error", spoken(prediction.error))
    good = [prediction for prediction in predictions if prediction.error is None]
    if csv is not None:
        write_csv(csv, good)
    if json_output:
        document: dict[str, Any] = {"checkpoint": str(path), "calibrated": info.calibration is not None}
        print_json(document | {"predictions": [asdict(prediction) for prediction in predictions]})
    elif good:
        from cifarnet.cli.tables import prediction_table

        least = info.calibration.unknown_at if info.calibration else None
        results().print(prediction_table([asdict(prediction) for prediction in good], least))
    bad = len(predictions) - len(good)
    if bad:
        raise Failed("predict", f"{bad} of {plural(len(predictions), 'file')} could not be used", "see the lines above")


def write_csv(path: Path, predictions: list["Prediction"]) -> None:
    """A line a file: its name, class and probability of each rank, and of a calibrated model whether it is none of them."""
    ranks = max((len(prediction.classes) for prediction in predictions), default=0)
    header = ["file", *(name for rank in range(1, ranks + 1) for name in (f"class_{rank}", f"probability_{rank}"))]
    judged = any(prediction.unknown_score is not None for prediction in predictions)
    header += ["unknown", "unknown_score"] if judged else []
    rows: list[list[Any]] = []
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        rows.append([prediction.file, *(cell for pair in pairs for cell in pair)])
        rows[-1] += [prediction.unknown, prediction.unknown_score] if judged else []
    write_rows(path, header, rows)
