"""`cifarnet explore`: one or two runs -> one HTML page in which their images, angles and errors are explored together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli.common import messages, print_path
from cifarnet.cli.figure_command import DataDir, Device, Seed, Split
from cifarnet.cli.figures import Overwrite, home_of_images, of_split, unnamed
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused, plural
from cifarnet.core.known import unknown
from cifarnet.storage.output import check_output, write_output
from cifarnet.storage.run_names import checkpoint_names

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cifarnet.analysis.explore.gather import Seen
    from cifarnet.analysis.features import Embeddings
    from cifarnet.models.classifier import Classifier
    from cifarnet.models.model_info import ModelInfo

Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN", help="A run folder or checkpoint, or two (default: runs/latest).", show_default=False
    ),
]
Maps = Annotated[str, typer.Option(help="One or several of umap, tsne, pca, with commas.")]
Out = Annotated[Path | None, typer.Option(help="The page (default: explore.html, of one run in its folder).")]
Samples = Annotated[int, typer.Option(min=0, max=10**9, help="Images, as many of each class (0: all of the split).")]


def explore(
    runs: Runs = None,
    maps: Maps = "umap, pca",
    samples: Samples = 10_000,
    split: Split = "test",
    seed: Seed = TrainConfig.seed,
    data_dir: DataDir = None,
    device: Device = "auto",
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a page to explore a run in the browser: map, sphere, pictures, angles, errors; two runs side by side.

    Name one run or two. The page is one HTML file, which works from the disk and asks for nothing from a network.

    Examples:
        cifarnet explore runs/latest
        cifarnet explore runs/latest --maps pca --samples 200 --out few.html
    """
    methods = check(runs or [], maps, samples)
    from cifarnet.analysis.explore.page import render
    from cifarnet.analysis.explore.thumbnails import thumbnails
    from cifarnet.cli import inputs
    from cifarnet.storage.find_checkpoint import need_checkpoint

    checkpoints = [need_checkpoint(run) for run in runs] if runs else [need_checkpoint(None)]
    out = asked_page(out, overwrite)
    names, models, found, pictures, homes = checkpoint_names(checkpoints), [], [], [], []
    for checkpoint in checkpoints:
        opened, indices = inputs.open_chosen(checkpoint, data_dir, split, samples, seed, device, named=bool(runs))
        found.append(inputs.embed_images(opened))
        homes.append(home_of_images(opened))
        pictures.append(thumbnails(opened.loader.split, opened.info.config.image_size))
        models.append((opened.model, opened.info))  # without the images, of which two sets may be large
    check_images(names, [info.classes for _, info in models], [one.labels for one in found], pictures, split)
    seen = [
        look(name, *model, outputs, methods, seed) for name, model, outputs in zip(names, models, found, strict=True)
    ]
    heading = f"{' and '.join(run.name for run in seen)} · {opened.dataset} {split}"
    shown: Any = {
        "classes": list(models[0][1].classes),
        "labels": found[0].labels,
        "indices": indices,
        "small": pictures[0],
    }
    target = out or unnamed(f"{of_split('explore', split)}.html", overwrite, *homes)
    write_output(target, render(seen, title=heading, split=split, **shown))
    print_path(target)


def check(runs: list[Path], maps: str, samples: int) -> list[str]:
    """The names in --maps. Raises Refused: more than two runs, an unknown method, too few images for a map."""
    from cifarnet.analysis.embedding import METHODS
    from cifarnet.analysis.explore.gather import FEWEST

    if len(runs) > 2:
        raise Refused("explore", f"{len(runs)} runs are named", "name one or two")
    if 0 < samples < FEWEST:
        raise Refused("--samples", f"{plural(samples, 'image')} cannot make a map", f"take {FEWEST} or more")
    methods = list(dict.fromkeys(word.strip().lower() for word in maps.split(",") if word.strip()))
    for word in methods:
        if word not in METHODS:
            raise unknown("maps", word, METHODS)
    if not methods:
        raise Refused("--maps", "none is named", f"choose from {', '.join(METHODS)}")
    return methods


def check_images(
    names: list[str], classes: list[Any], labels: list["Tensor"], pictures: list["np.ndarray"], split: str
) -> None:
    """Raises Refused where two runs have not seen the same images of the same classes, or the split is too small for a map."""
    from cifarnet.analysis.explore.gather import FEWEST, check_same_images

    if classes[0] != classes[-1]:
        raise Refused(" and ".join(names), "have different classes", "name two runs on the same data")
    check_same_images(names, labels, pictures)
    if len(labels[0]) < FEWEST:  # --samples asks for as many or more
        why = f"it has only {plural(len(labels[0]), 'image')}, and a map needs {FEWEST} or more"
        raise Refused(f"`split={split}`", why, "choose another split, or name data with more images")


def look(
    name: str, model: "Classifier", info: "ModelInfo", found: "Embeddings", methods: list[str], seed: int
) -> "Seen":
    """A run's images as it sees them; warns of each map that cannot be made. Raises Refused as `gather`."""
    from cifarnet.analysis.embedding import METHODS
    from cifarnet.analysis.explore.gather import gather

    with messages().status(f"{' and '.join(methods)} of {plural(len(found.labels), 'image')}"):
        seen = gather(model, info, found, name=name, title=title_of(info.config), methods=methods, seed=seed)
    for method, why in seen.missing.items():
        messages().remark("warning", f"{name}: no {METHODS[method]}, which the page says: {why}")
    return seen


def asked_page(out: Path | None, overwrite: bool) -> Path | None:
    """Where the user wants the page; None where no name is given. Raises Refused: no name of an HTML file, or something is in the way."""
    if out is None:
        return None
    if out.suffix.lower() not in (".html", ".htm"):
        raise Refused(str(out), f"'{out.suffix}' is no suffix of a page", "end the name in .html")
    return check_output(out, overwrite)
