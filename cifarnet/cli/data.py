"""`cifarnet data [NAME]`: the data sets -> what is there and where; fetched, or written in another layout, when asked."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarnet.cli.common import messages, print_json, results
from cifarnet.cli.options import spoken_error
from cifarnet.cli.run_data import show_run
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import CifarnetError, Refused, plural
from cifarnet.data.convert import CIFAR, check_conversion
from cifarnet.data.registry import DATASETS, load_options

if TYPE_CHECKING:
    from cifarnet.data import Dataset
    from cifarnet.data.facts import DataFacts


def data(
    dataset: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The data set (default: each of them).", show_default=False)
    ] = None,
    data_dir: Annotated[str | None, typer.Option(help="Where to look first (default: the user's cache).")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch it now where it is missing.")] = False,
    run: Annotated[Path | None, typer.Option(help="Say what this run trains on.")] = None,
    convert: Annotated[
        str | None, typer.Option(help="Write it in another layout: binary (CIFAR's own), folder (PNG), parquet.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where --convert writes: a new or an empty folder.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which data is there: layout, place, images, classes, digest, and how to get what is missing.

    Examples:
        cifarnet data
        cifarnet data --run runs/latest
        cifarnet data digits --convert folder --out digits-png
    """
    check_options(dataset, data_dir, download, convert, out)
    if run is not None:
        if dataset is not None or download or convert is not None:
            raise Refused("--run", "names the data set itself", "leave the other names and options out")
        show_run(run, data_dir, json_output)
        return
    if dataset is None:
        show_all(data_dir, json_output)
        return
    found = read(dataset, data_dir, download)
    if convert is not None and out is not None:
        found = converted(found, convert, data_dir, out)
    facts = summed_up(found)
    if json_output:
        print_json(asdict(facts))
    else:
        from cifarnet.cli.data_tables import print_one

        print_one(results(), facts)


def check_options(
    dataset: str | None, data_dir: str | None, download: bool, convert: str | None, out: Path | None
) -> None:
    """Refuses, before anything is read, what cannot be meant."""
    if dataset is None and (download or convert is not None):
        flag = "--download" if download else "--convert"
        raise Refused(flag, "no data set is named", f"for example: cifarnet data cifar10 {flag}")
    if download and dataset not in CIFAR:
        raise Refused("--download", f"{dataset} is not downloaded", f"{' and '.join(CIFAR)} are")
    if (convert is None) != (out is None):
        other = "--out" if out is None else "--convert"
        fix = "name a new or an empty folder" if out is None else "say which layout: binary, folder or parquet"
        raise Refused(other, "--convert and --out go together, and it is missing", fix)
    if dataset is not None and convert is not None and out is not None:
        check_conversion(dataset, convert, out)


def read(name: str, data_dir: str | None, download: bool) -> "Dataset":
    """The data set. Raises Refused where it is missing, with the command that fetches it."""
    from cifarnet.cli.progress import load_shown
    from cifarnet.data.sources.fetch_archive import Missing

    try:
        return load_shown(messages(), name, data_dir, **load_options(TrainConfig(), name), download=download)
    except Missing as error:
        raise Missing(error.what, error.why, f"`cifarnet data {name} --download` fetches it, or {error.fix}") from error


def converted(found: "Dataset", layout: str, data_dir: str | None, out: Path) -> "Dataset":
    """Writes the set into `out` and says that it is the same; returns it as it was read back."""
    from cifarnet.cli.progress import Shown
    from cifarnet.data import load
    from cifarnet.data.convert import convert

    both = None
    if layout == "binary" and found.name == "cifar100":
        both = load(found.name, data_dir, coarse=True, download=False)
    with Shown(messages(), f"writing {found.name}") as shown:
        written = convert(found, layout, out, both, shown.show)
    count = plural(len(written.train) + len(written.test), "image")
    messages().say(f"{out}: read back, the same classes, labels and pixels of {count} as in {found.name}")
    if any(found.substituted):
        others = sum(found.substituted)
        which = "is known not to be the published one" if others == 1 else "are known not to be the published ones"
        messages().say(f"{others:,} of them {which}")
    return written


def show_all(data_dir: str | None, json_output: bool) -> None:
    """Prints a row for each data set, and below what keeps the others from being there."""
    listed = [look(name, data_dir) for name in DATASETS]
    if json_output:
        print_json([asdict(facts) for facts in listed])
        return
    from cifarnet.cli.data_tables import print_all

    print_all(results(), listed)


def look(name: str, data_dir: str | None) -> "DataFacts":
    """The facts of one of the sets; one that cannot be read has its reason."""
    from cifarnet.data.facts import MISSING, DataFacts
    from cifarnet.data.sources.fetch_archive import Missing

    try:
        return summed_up(read(name, data_dir if DATASETS[name].takes_folder else None, download=False))
    except Missing as error:
        return DataFacts(name, status=MISSING, problem=f"{error.why}; cifarnet data {name} --download fetches it")
    except CifarnetError as error:
        if data_dir is None and DATASETS[name].from_files:
            return DataFacts(name)  # there is no place where it would be looked for
        return DataFacts(name, status=MISSING, problem=spoken_error(error.what, error.why, error.fix))


def summed_up(found: "Dataset") -> "DataFacts":
    """The facts of a data set; its digest may take a few seconds."""
    from cifarnet.data.facts import facts_of

    with messages().status(f"digesting {found.name}"):
        return facts_of(found)
