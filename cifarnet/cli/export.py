"""`cifarnet export`: a trained model -> one file that other programs run, checked before it is there."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.figure_command import DataDir
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.run_option import Run
from cifarnet.storage.output import check_output, write_output


def export(
    run: Run = None,
    format: Annotated[
        str, typer.Option(help="onnx (for onnxruntime), or torch (torch.export, .pt2).", metavar="onnx|torch")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file (default: model.onnx or model.pt2 in the run's folder).")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half the size; the head stays fp32.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="A quarter of the size, fitted to 512 training images (ONNX).")
    ] = False,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a model as one file: uint8 RGB images in; probabilities, logits and unit embeddings out.

    Normalisation and a fitted temperature are inside. It is written only once it computes what the model does.

    Examples:
        cifarnet export                                  # the newest run: model.onnx
        cifarnet export runs/latest --format torch --out model.pt2
    """
    from cifarnet.analysis.card.facts import facts_of
    from cifarnet.analysis.card.text import card
    from cifarnet.analysis.export.formats import check_packages, check_suffix
    from cifarnet.analysis.export.write import default_name, export_model, precision_of
    from cifarnet.cli.export_tables import print_export
    from cifarnet.cli.headline import say_model
    from cifarnet.cli.progress import load_shown
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    precision = precision_of(format, fp16, int8)
    check_packages(format)
    path = default_checkpoint(run)
    if out is not None:
        check_suffix(out, format)
    place = check_output(out or default_name(path, format, precision), overwrite)
    special = place.exists() and not place.is_file()  # a pipe, /dev/null
    beside = None if special else check_output(place.with_name(f"{place.name}.md"), overwrite)
    model, info = load_model(path)
    facts, console = facts_of(path, info), messages()
    say_model(console, path, model, info, named=run is not None)
    with console.status(f"exporting and checking {info.config.arch}"):
        read: Any = partial(load_shown, console)
        done = export_model(path, model, info, place, format, precision, data_dir=data_dir, read=read).to_dict()
    if beside is not None:
        write_output(beside, card(facts, done).encode())
    done["card"] = beside and str(beside)
    print_json(done) if json_output else print_export(results(), done)
