"""`cifarnet complexity`: an architecture -> parameters, MACs, FLOPs, memory, and time on request."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import given_options, messages, print_json, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figures import Overwrite, asked_figure
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.models import ARCHS
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from cifarnet.analysis.complexity import Complexity
    from cifarnet.analysis.diagram import Diagram
    from cifarnet.analysis.timing import Timing
    from cifarnet.cli.terminal import Terminal

CLASSES = 10  # of a model that comes from no checkpoint


def complexity(
    context: typer.Context,
    arch: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(ARCHS)} (default: {TrainConfig.arch}); may be given again."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every architecture.")] = False,
    run: Annotated[Path | None, typer.Option("--run", help="The model of a run folder or checkpoint.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=65_536, help="Images in a pass.")] = 1,
    image_size: Annotated[
        int, typer.Option(min=8, max=1024, help="Side of the square input, pixels.")
    ] = TrainConfig.image_size,
    stem: Annotated[
        str, typer.Option(help="First layers of a ResNet: small, cifar or imagenet.", metavar="small|cifar|imagenet")
    ] = TrainConfig.stem,
    layers: Annotated[bool, typer.Option("--layers", help="A row for each layer.")] = False,
    stages: Annotated[bool, typer.Option("--stages", help="The models side by side, stage by stage.")] = False,
    measured: Annotated[bool, typer.Option("--time", help="Measure latency and throughput too.")] = False,
    device: Annotated[str, typer.Option(help="Where --time measures: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of --time: auto, fp32 or bf16.", metavar="auto|fp32|bf16")] = "auto",
    figure: Annotated[Path | None, typer.Option(help="Draw the models (PNG, SVG or PDF).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this file.")] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """The costs of a model: parameters, MACs and FLOPs (1 MAC = 2 FLOPs), memory, and the ratio to the baseline CNN.

    Examples:
        cifarnet complexity --arch resnet50
        cifarnet complexity --arch baseline --arch resnet18 --layers
        cifarnet complexity --arch resnet18 --arch resnet34 --arch resnet50 --stages
        cifarnet complexity --all --csv costs.csv
        cifarnet complexity --run runs/latest --time
    """
    given = given_options(context)
    if run is not None and given & {"arch", "every", "stem", "image_size"}:
        raise Refused("--run", "says itself what the model is", "drop --arch, --all, --stem and --image-size")
    if every and "arch" in given:
        raise Refused("--all", "takes every architecture", "drop --arch")
    csv = check_output(csv, overwrite) if csv else None
    figure = asked_figure(figure, overwrite)
    configs, classes = chosen_configs(arch or [TrainConfig.arch], every, run, image_size, stem)
    costs = count(configs, classes, batch, skip=every)
    (baseline,) = count([TrainConfig(arch="baseline")], classes, 1)
    times = [time_of(config, classes, batch, device, precision) if measured else None for config, _ in costs]
    counted = [cost for _, cost in costs]
    rows = [documented(cost, baseline[1], timing) for cost, timing in zip(counted, times, strict=True)]
    if stages:
        from cifarnet.analysis.diagram import diagram
    networks = [diagram(config, classes) for config, _ in costs] if stages else []
    if figure is not None:
        from cifarnet.analysis.plots import complexity as picture

        picture.draw(rows, figure)
    if csv is not None:
        names = [name for name, value in rows[0].items() if not isinstance(value, (dict, tuple, list))]
        write_rows(csv, names, [[row[name] for name in names] for row in rows])
    if json_output:
        against = {"arch": "baseline", "image_size": baseline[1].image_size, "classes": classes}
        from cifarnet.analysis.stages import depth, described

        for row, network in zip(rows, networks, strict=False):
            row |= {"depth": depth(network), "stages": described(network)}
        print_json({"mac": "1 MAC = 2 FLOPs", "ratios_to": against, "models": rows})
        return
    print_tables(results(), counted, rows, baseline[1], layers, networks)
    if figure is not None:
        results().say("figure  ", figure, soft_wrap=True)


def chosen_configs(
    archs: list[str], every: bool, run: Path | None, image_size: int, stem: str
) -> tuple[list[TrainConfig], int]:
    """The models to count, and their number of classes."""
    if run is None:
        names = list(ARCHS) if every else list(dict.fromkeys(archs))
        return [TrainConfig(arch=name, stem=stem, image_size=image_size).check() for name in names], CLASSES
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import find_checkpoint

    path = find_checkpoint(run)
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
            messages().say(f"left out: {error}")
    return counted


def time_of(config: TrainConfig, classes: int, batch: int, device: str, precision: str) -> "Timing":
    """Measures a model, with a line on stderr while it lasts."""
    from cifarnet.analysis.timing import measure_time
    from cifarnet.core.devices import pick_device, pick_precision

    target = pick_device(device)
    with messages().status(f"timing {config.arch}"):
        return measure_time(config, classes, batch, target, pick_precision(precision, target))


def documented(cost: "Complexity", baseline: "Complexity", timing: "Timing | None") -> dict[str, Any]:
    """A model's JSON values."""
    values = cost.to_dict(baseline)
    return values if timing is None else values | {"time": dataclasses.asdict(timing)}


def print_tables(
    console: "Terminal",
    costs: list["Complexity"],
    rows: list[dict[str, Any]],
    baseline: "Complexity",
    layers: bool,
    networks: Sequence["Diagram"] = (),
) -> None:
    """The table of models, that of `networks` by stage; with `layers` the layers too, and the operators not counted."""
    from cifarnet.cli import cost_tables
    from cifarnet.cli.stage_tables import stage_table
    from cifarnet.core.errors import plural

    console.print(cost_tables.model_table(rows, baseline))
    if "time" in rows[0]:
        console.print()
        console.print(cost_tables.time_table(rows))
    if networks:
        console.print()
        console.print(stage_table(networks))
        console.print()
    without = cost_tables.uncounted(costs)
    if not layers:
        kinds = f"{plural(len(without), 'kind')} of operators"
        console.say((f"not counted: {kinds} without a FLOP formula, which --layers lists", "dim"))
        return
    for cost in costs:
        console.print()
        console.print(cost_tables.layer_table(cost))
    console.print()
    listed = ", ".join(f"{name} ({count})" for name, count in without.items())
    console.say((f"without a FLOP formula, not counted (calls): {listed}", "dim"))
