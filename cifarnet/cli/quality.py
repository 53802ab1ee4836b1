"""`cifarnet quality`: a trained model and a split -> do its norm and other scores say how well an image is recognised?"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli.common import messages, print_json, print_path, results
from cifarnet.cli.csv_file import write_rows
from cifarnet.cli.figure_command import DataDir, DataOut, Device, Out, Split, Title
from cifarnet.cli.figures import Overwrite, asked_figure, home_of_images, numbers_path, of_split, unnamed, write_numbers
from cifarnet.cli.run_option import Run
from cifarnet.cli.verify_figures import Classes
from cifarnet.core.config import TrainConfig
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from cifarnet.cli.inputs import Wanted
    from cifarnet.engine.open_split import Opened

Scores = Annotated[str, typer.Option(help="One or several of these, with commas.")]
Degrade = Annotated[str, typer.Option(help="One or several of these, with commas, or none.")]
Far = Annotated[
    float,
    typer.Option(
        "--far", "--fmr", help="False match rate, over all pairs, that fixes the threshold (above 0, to 0.5)."
    ),
]
Samples = Annotated[
    int, typer.Option(min=0, max=10**9, help="Images that are degraded, as many of each class (0: all of the split).")
]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of these images, the noise and the random orders.")]

ALL_SCORES, ALL_DEGRADATIONS = "norm, max-cosine, margin, entropy", "blur, jpeg, noise, resize"


def quality(
    run: Run = None,
    scores: Scores = ALL_SCORES,
    degrade: Degrade = ALL_DEGRADATIONS,
    far: Far = 0.001,
    samples: Samples = 1000,
    split: Split = "test",
    classes: Classes = None,
    data_dir: DataDir = None,
    seed: Seed = TrainConfig.seed,
    device: Device = "auto",
    figure: Annotated[Path | None, typer.Option(help="Draw the curves (PNG, SVG or PDF).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line a score: areas and correlations.")] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Is a feature's norm a quality? Errors as the worst images are left out, and scores as images get worse.

    Examples:
        cifarnet quality --far 0.01                        # the newest run
        cifarnet quality runs/latest --scores norm --degrade none --far 0.01
    """
    from cifarnet.cli import inputs

    options = check(scores, degrade, far, samples, seed)
    csv = check_output(csv, overwrite) if csv else None
    figure = asked_figure(figure, overwrite)
    opened, document = measure(run, inputs.Wanted(split, classes, data_dir, device), options)
    if figure is not None:
        from cifarnet.analysis.plots import quality as picture

        picture.draw(document, figure, title_of(opened.info.config))
    if csv is not None:
        write_scores(csv, document)
    if json_output:
        print_json(document)
        return
    from cifarnet.cli.quality_tables import print_quality

    print_quality(results(), document, str(figure or ""))


def quality_figure(
    run: Run = None,
    scores: Scores = ALL_SCORES,
    degrade: Degrade = ALL_DEGRADATIONS,
    far: Far = 0.001,
    samples: Samples = 1000,
    split: Split = "test",
    classes: Classes = None,
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    title: Title = None,
    data_out: DataOut = None,
    overwrite: Overwrite = False,
) -> None:
    """Errors as the worst images are left out, and what norm, cosine and entropy do as images get worse.

    Examples:
        cifarnet visualize quality --far 0.01 --degrade blur,noise
        cifarnet visualize quality --far 0.01 --degrade none --out norm.pdf
    """
    from cifarnet.cli import inputs

    options = check(scores, degrade, far, samples, seed)
    out, data_out = asked_figure(out, overwrite), numbers_path(data_out, overwrite)
    opened, document = measure(run, inputs.Wanted(split, classes, data_dir, device), options)
    target = out or unnamed(f"{of_split('quality', split)}.png", overwrite, home_of_images(opened))
    from cifarnet.analysis.plots import quality as picture

    picture.draw(document, target, title_of(opened.info.config) if title is None else title)
    write_numbers(data_out, picture.numbers(document))
    print_path(target)


@dataclass(frozen=True)
class Options:
    """Of a measurement, as `measure_quality` takes them, but for the classes."""

    scores: list[str]
    degradations: list[str]
    far: float
    samples: int
    seed: int


def check(scores: str, degrade: str, far: float, samples: int, seed: int) -> Options:
    """The options, `scores` and `degrade` from lists with commas. Raises Refused: an unknown name, a rate out of range."""
    from cifarnet.analysis.quality.degraded import check_degradations
    from cifarnet.analysis.quality.pairs import check_rate
    from cifarnet.analysis.quality.scores import check_scores

    check_rate(far)
    return Options(check_scores(words(scores)), check_degradations(words(degrade)), far, samples, seed)


def measure(run: Path | None, wanted: "Wanted", options: Options) -> tuple["Opened", dict[str, Any]]:
    """Opens a run and measures it: the model with its split, and the document of `measure_quality` with their names.

    Raises:
        Refused: no such run, data that is missing or has too few pairs. Failed: numbers that are not finite.
    """
    from cifarnet.analysis.quality.measure import measure_quality
    from cifarnet.cli.headline import say_opened
    from cifarnet.cli.inputs import open_wanted
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import need_checkpoint

    path = need_checkpoint(run)
    model, info = load_model(path)
    opened = open_wanted(path, model, info, wanted)
    say_opened(messages(), opened, named=run is not None)
    loss = info.config.loss
    if not opened.angular and {"max-cosine", "margin"} & set(options.scores):
        messages().say(
            f"note: {loss} has no prototypes on a sphere; max-cosine and margin are cosines to the rows of W, "
            "without their lengths and the bias that the model decides by"
        )
    with messages().status("measuring quality"):
        given = asdict(options) | {"degradations": options.degradations or ["none"]}
        found = measure_quality(opened, classes=wanted.classes, **given)
    named = {"checkpoint": str(opened.path), "dataset": opened.dataset, "split": wanted.split, "loss": loss}
    return opened, named | {"epoch": opened.info.epoch, "seed": options.seed} | found


def words(text: str) -> list[str]:
    """The names in a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def write_scores(path: Path, document: dict[str, Any]) -> None:
    """A line a score: FNMR after a fifth is left out, areas with their share of the best, correlations."""
    limits = list(document["best"])
    header = ["score", "fnmr_after_discard", *(f"pauc_{limit}" for limit in limits)]
    header += [*(f"share_of_best_{limit}" for limit in limits), "against_chance"]
    header += [f"rho_{name}" for name in document["degradations"]]
    rows = []
    for name, one in document["scores"].items():
        rows.append([name, one["fnmr_after_discard"], *one["pauc"].values(), *one["share_of_best"].values()])
        rows[-1] += [one["against_chance"], *(row["scores"][name]["rho"] for row in document["degradations"].values())]
    write_rows(path, header, rows)
