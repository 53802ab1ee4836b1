"""`cifarnet complexity`: an architecture -> parameters, MACs, FLOPs, memory, and time on request."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import given_options, messages, print_json, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models import ARCHS

if TYPE_CHECKING:
    from cifarnet.analysis.complexity import Complexity, Timing

CLASSES = 10  # of a model that comes from no checkpoint


def complexity(
    context: typer.Context,
    arch: Annotated[str, typer.Option(help=f"One of {', '.join(ARCHS)}.")] = TrainConfig.arch,
    every: Annotated[bool, typer.Option("--all", help="Every architecture.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="The model of a run folder or checkpoint.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in a pass.")] = 1,
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the square input, pixels.")
    ] = TrainConfig.image_size,
    stem: Annotated[
        str, typer.Option(help="First layers of a ResNet: small, cifar or imagenet.", metavar="small|cifar|imagenet")
    ] = TrainConfig.stem,
    layers: Annotated[bool, typer.Option("--layers", help="A row for each layer.")] = False,
    measured: Annotated[bool, typer.Option("--time", help="Measure latency and throughput too.")] = False,
    device: Annotated[str, typer.Option(help="Where --time measures: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of --time: auto, fp32 or bf16.", metavar="auto|fp32|bf16")] = "auto",
    figure: Annotated[Path | None, typer.Option(help="Draw the models (PNG, SVG or PDF).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """The costs of a model: parameters, MACs and FLOPs (1 MAC = 2 FLOPs), memory, and the ratio to the baseline CNN."""
    given = given_options(context)
    if checkpoint is not None and given & {"arch", "every", "stem", "image_size"}:
        raise Refused("--checkpoint", "says itself what the model is", "drop --arch, --all, --stem and --image-size")
    if every and "arch" in given:
        raise Refused("--all", "takes every architecture", "drop --arch")
    configs, classes = chosen_configs(arch, every, checkpoint, image_size, stem)
    costs = count(configs, classes, batch, skip=every)
    (baseline,) = count([TrainConfig(arch="baseline")], classes, 1)
    times = [time_of(config, classes, batch, device, precision) if measured else None for config, _ in costs]
    counted = [cost for _, cost in costs]
    rows = [documented(cost, baseline[1], timing) for cost, timing in zip(counted, times, strict=True)]
    if figure is not None:
        from cifarnet.analysis.plots import complexity as picture

        picture.draw(rows, figure)
    if csv is not None:
        names = [name for name, value in rows[0].items() if not isinstance(value, (dict, tuple, list))]
        write_rows(csv, names, [[row[name] for name in names] for row in rows])
    if json_output:
        print_json({"mac": "1 MAC = 2 FLOPs", "models": rows})
        return
    print_tables(counted, rows, layers, figure)


def chosen_configs(
    arch: str, every: bool, checkpoint: Path | None, image_size: int, stem: str
) -> tuple[list[TrainConfig], int]:
    """The models to count, and their number of classes."""
    if checkpoint is None:
        names = list(ARCHS) if every else [arch]
        return [TrainConfig(arch=name, stem=stem, image_size=image_size).check() for name in names], CLASSES
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import find_checkpoint

    path = find_checkpoint(checkpoint)
    assert path is not None
    _, info = load_model(path)
    return [info.config], len(info.classes)


def count(
    configs: list[TrainConfig], classes: int, batch: int, skip: bool = False
) -> list[tuple[TrainConfig, "Complexity"]]:
    """Each model with its cost; with `skip` one that cannot be is named on stderr and left out.

    Raises:
        Refused: a model that cannot be, without `skip`.
    """
    from cifarnet.analysis.complexity import measure

    counted = []
    for config in configs:
        try:
            counted.append((config, measure(config, classes, batch)))
        except Refused as error:
            if not skip:
                raise
            messages().print(f"left out: {error}", markup=False)
    return counted


def time_of(config: TrainConfig, classes: int, batch: int, device: str, precision: str) -> "Timing":
    """Measures a model, with a line on stderr while it lasts."""
    from cifarnet.analysis.complexity import measure_time
    from cifarnet.core.devices import pick_device, pick_precision

    target = pick_device(device)
    with messages().status(f"timing {config.arch}"):
        return measure_time(config, classes, batch, target, pick_precision(precision, target))


def documented(cost: "Complexity", baseline: "Complexity", timing: "Timing | None") -> dict[str, Any]:
    """A model's JSON values."""
    values = cost.to_dict(baseline)
    return values if timing is None else values | {"time": dataclasses.asdict(timing)}


def print_tables(counted: list["Complexity"], rows: list[dict[str, Any]], layers: bool, figure: Path | None) -> None:
    """The table of models, the layers where they are asked for, and what was not counted."""
    from cifarnet.cli import cost_tables

    console = results()
    console.print(cost_tables.model_table(rows))
    if "time" in rows[0]:
        console.print(cost_tables.time_table(rows))
    if layers:
        for cost in counted:
            console.print(cost_tables.layer_table(cost))
    calls: dict[str, int] = {}
    for cost in counted:
        for name, count in cost.uncounted.items():
            calls[name] = max(calls.get(name, 0), count)
    listed = ", ".join(f"{name} ({count})" for name, count in calls.items())
    console.print(f"[dim]uncounted (calls): {listed}[/]", soft_wrap=True)
    if figure is not None:
        console.print(f"figure  {figure}", markup=False, soft_wrap=True)
