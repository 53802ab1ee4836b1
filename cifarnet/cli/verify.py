"""`cifarnet verify`: a model and pairs of images -> how well their scores tell identities apart; or two images -> a decision."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, results, say_files
from cifarnet.cli.figures import Overwrite, asked_figure
from cifarnet.cli.rates import parse_rates
from cifarnet.core.errors import Failed, Refused, plural, printable
from cifarnet.storage.output import check_output

if TYPE_CHECKING:
    from cifarnet.analysis.unit_embeddings import Embedder
    from cifarnet.analysis.verify_images import Asked, Measured
    from cifarnet.cli.inputs import Wanted
    from cifarnet.cli.verify_files import Files


def verify(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN | A B", help="A run or checkpoint to measure, or two images to compare.", show_default=False
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run folder or checkpoint (default: runs/latest, else the model in the package)."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test, train, or val (what the run held out; default: test).")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="unseen, seen or all (default: unseen, if any were held out).", metavar="unseen|seen|all"),
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Listed pairs: a CSV a,b,same or LFW's pairs.txt.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="A folder for each identity; with --pairs: where its images are.")
    ] = None,
    far: Annotated[
        str | None, typer.Option(help="False accept rates, as 1e-1,1e-2 (default: 0.1 to 0.0001).", show_default=False)
    ] = None,
    folds: Annotated[bool, typer.Option("--folds", help="Of --pairs: accuracy by folds, as LFW.")] = False,
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="Resamples behind the intervals, 100 or more; 0: none.")
    ] = 1000,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored image's features.")] = False,
    data_dir: Annotated[
        str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Where the thresholds go (default: verification.json in the run).")
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(help="Of A B: a verification.json (default: the run's).")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line for each FAR.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw DET curve and scores: PNG, SVG or PDF.")] = None,
    overwrite: Overwrite = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tell identities apart by a score and a threshold: TAR at a FAR, EER, AUC, with intervals; or compare two images.

    Examples:
        cifarnet verify                              # all pairs, newest run
        cifarnet verify runs/latest --classes seen --far 1e-2,1e-3
        cifarnet verify photo.jpg photo.jpg --run runs/latest
    """
    from cifarnet.analysis.unit_embeddings import Embedder
    from cifarnet.analysis.verify_images import Asked
    from cifarnet.cli.headline import say_model
    from cifarnet.cli.inputs import Wanted
    from cifarnet.cli.verify_files import Files
    from cifarnet.cli.verify_two import compare
    from cifarnet.core.devices import pick_device
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    words, fars, target = list(images or ()), parse_rates("--far", far, "1e-2,1e-3"), pick_device(device)
    two = check_words(words, run)
    given: dict[str, Any] = {"pairs": pairs, "folder": folder, "csv": csv, "figure": figure, "out": out}
    given |= {"folds": folds, "split": split, "classes": classes, "data_dir": data_dir, "flip": flip}
    check_together(two, given, thresholds, fars)
    csv, out = (check_output(path, overwrite) if path else None for path in (csv, out))
    files = Files(out, csv, asked_figure(figure, overwrite), overwrite)
    if words and not two:
        run = words[0]
    path = default_checkpoint(run)
    model, info = load_model(path, of_features=not (two or pairs or folder))
    say_model(messages(), path, model, info, named=run is not None)
    embedder = Embedder(model, info, target, flip)
    if two:
        compare(words, path, embedder, fars, thresholds, json_output)
        return
    asked = Asked(fars, bootstrap, folds)
    if pairs or folder:
        measured = of_files(embedder, pairs, folder, asked)
    else:
        measured = of_split(path, embedder, Wanted(split or "test", classes, data_dir, device), asked)
    report(measured, path, embedder, files, json_output)


def check_words(words: list[Path], run: Path | None) -> bool:
    """Are these two images? Raises Refused where they are neither these nor one run."""
    from cifarnet.data.images.formats import is_image_name

    if len(words) > 2:
        raise Refused("verify", f"{len(words)} names are given", "give one run to measure, or two images to compare")
    if len(words) == 1 and is_image_name(words[0].name):
        raise Refused(printable(words[0]), "one image has nothing to be compared with", "give two, or a run to measure")
    if len(words) == 1 and run is None and holds_identities(words[0]):
        what = printable(words[0])
        raise Refused(what, "holds folders of images, and is no run", f"did you mean --folder {shlex.quote(what)}?")
    if len(words) == 1 and run is not None:
        raise Refused("verify", f"{printable(words[0])} and --run {printable(run)} are both given", "name the run once")
    return len(words) == 2


def holds_identities(path: Path) -> bool:
    """Is there an image in some folder of this one, and is none of them a run's? A run has pictures too."""
    from cifarnet.data.images.formats import is_image_name
    from cifarnet.storage.run_folder import RunFolder

    try:
        folders = [folder for folder in path.iterdir() if folder.is_dir()]
        if any(RunFolder(folder).is_run() for folder in (path, *folders)):
            return False
        return any(is_image_name(file.name) for folder in folders for file in folder.iterdir())
    except OSError:
        return False


def check_together(two: bool, given: dict[str, Any], thresholds: Path | None, fars: list[float] | None) -> None:
    """Refuses options that say nothing of what is asked for."""
    listed = [name for name, value in given.items() if value]
    if two and listed:
        raise Refused(listed[0], "is of a measurement, and two images are only compared", "leave it out")
    if two and fars and len(fars) > 1:
        raise Refused("far", "two images are decided at one FAR", "give one")
    if not two and thresholds:
        raise Refused("thresholds", "is of two images", "give two images to compare, or leave it out")
    if given["folds"] and not given["pairs"]:
        raise Refused("folds", "only a list of pairs has folds", "add `pairs`")
    files = given["pairs"] or given["folder"]
    for name in listed if files else []:
        if name in ("split", "classes", "data_dir"):
            raise Refused(name, "is of the run's data, and the images are given by name", "leave it out")


def of_split(path: Path, embedder: "Embedder", wanted: "Wanted", asked: "Asked") -> "Measured":
    """All pairs of a split of the run's data. Raises as `open_wanted` and `verify_split`."""
    from cifarnet.analysis.verify_images import verify_split
    from cifarnet.cli.inputs import open_wanted

    opened = open_wanted(path, embedder.model, embedder.info, wanted)
    with messages().status("comparing all pairs"):
        return verify_split(opened, wanted.classes, asked, embedder.flip)


def of_files(embedder: "Embedder", pairs: Path | None, folder: Path | None, asked: "Asked") -> "Measured":
    """Listed pairs, or all pairs of the images in folders. Raises as `read_pairs`, `verify_listed` and `verify_folder`."""
    from cifarnet.analysis.verification.pair_files import read_pairs
    from cifarnet.analysis.verify_images import verify_folder, verify_listed

    if pairs is None:
        assert folder is not None
        with messages().status("comparing all pairs"):
            return verify_folder(embedder, folder, asked)
    listed = read_pairs(pairs, folder)
    with messages().status(f"comparing {plural(len(listed.places), 'pair')}"):
        return verify_listed(embedder, listed, str(pairs), asked)


def report(measured: "Measured", path: Path, embedder: "Embedder", files: "Files", json_output: bool) -> None:
    """Says what was left out, writes the files, prints the result.

    Raises:
        Failed: some images could not be used; all else is done.
    """
    from cifarnet.cli.verify_files import write_files
    from cifarnet.cli.verify_tables import print_verification

    say_files(measured.errors, measured.remarks)
    document, written = write_files(measured, path, embedder, files)
    if json_output:
        print_json(document)
    else:
        print_verification(results(), document, written)
    if measured.errors:
        why = f"{plural(len(measured.errors), 'file')} could not be used"
        raise Failed("verify", why, "see the lines above; the rest is measured")
