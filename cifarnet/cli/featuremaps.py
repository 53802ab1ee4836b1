"""`cifarnet featuremaps IMAGE`: an image -> what each layer makes of it, Grad-CAM and LayerCAM on request, and their score."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, print_path, results
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.options import spoken
from cifarnet.core.errors import Failed, Refused, plural
from cifarnet.models import find_arch

if TYPE_CHECKING:
    from cifarnet.cli.image_figures import ImageFigures
    from cifarnet.models.classifier import Classifier
    from cifarnet.models.model_info import ModelInfo


def featuremaps(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Image files, or folders with --recursive.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run folder or checkpoint (default: runs/latest, else the model in the package)."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer to draw; may be given again (default: each stage).")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, max=1024, help="Channels in a grid.")] = 25,
    grad_cam: Annotated[
        bool, typer.Option("--grad-cam", help="Also draw where the evidence for a class lies.")
    ] = False,
    layer_cam: Annotated[
        bool, typer.Option("--layer-cam", help="The same by LayerCAM: a weight a pixel, not a channel.")
    ] = False,
    deletion: Annotated[
        bool, typer.Option("--deletion", help="Score these maps: the class's probability as their pixels go.")
    ] = False,
    target: Annotated[
        str | None, typer.Option("--class", help="The class they explain (default: the three likeliest).")
    ] = None,
    crop: Annotated[
        bool, typer.Option("--crop", help="Cut a centred square out of the image (default: squeeze it).")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look for images inside folders.")] = False,
    out: Annotated[Path, typer.Option(help="Folder; each image gets one of its own inside.")] = Path("featuremaps"),
    overwrite: Overwrite = False,
    title: Annotated[str | None, typer.Option(help="What stands above (default: model, loss, data set).")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw what each layer makes of an image: a grid of channels a layer, an overview of the network, Grad-CAM, LayerCAM.

    --deletion replaces the pixels that a map marks by the data's mean colour, most marked first
    (by black, where the run was trained with --no-normalize).
    The score is the area under the class's probability (RISE), the lower the better;
    beside it stand ten random orders of pixels and ten random maps.

    Examples:
        cifarnet featuremaps photo.jpg
        cifarnet featuremaps photo.jpg --grad-cam --run runs/latest --out maps
        cifarnet featuremaps photo.jpg --grad-cam --layer-cam --deletion
    """
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.cli.headline import say_model
    from cifarnet.cli.image_figures import ImageFigures
    from cifarnet.data.images.decode import find_images
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    files = find_images(images, recursive)
    path = default_checkpoint(run)
    model, info = load_model(path)
    cams = [name for name, wanted in (("grad-cam", grad_cam), ("layer-cam", layer_cam)) if wanted]
    if target is not None and target not in info.classes:
        raise Refused("--class", f"the model has no class '{target}'", f"choose from {', '.join(info.classes[:100])}")
    if target is not None and not cams:
        raise Refused("--class", "names the class of a map", "add --grad-cam or --layer-cam")
    if deletion and not cams:
        raise Refused("--deletion", "scores the map of a class", "add --grad-cam or --layer-cam")
    if out.is_file():
        raise Refused(str(out), "is a file", "name a folder with --out")
    say_model(messages(), path, model, info, named=run is not None)
    layers = layer or default_layers(model, info)
    title = title_of(info.config) if title is None else title
    figures = ImageFigures(model, info, layers, channels, crop, cams, deletion, target, title)
    documents = draw_all(figures, files, out, overwrite, quiet=json_output)
    if json_output:
        print_json({"checkpoint": str(path), "images": documents})
    elif deletion and documents:
        from cifarnet.cli.deletion_tables import deletion_table

        results().print(deletion_table(documents, layers[-1]))
    if bad := len(files) - len(documents):
        raise Failed("featuremaps", f"{bad} of {plural(len(files), 'file')} could not be used", "see the lines above")


def default_layers(model: "Classifier", info: "ModelInfo") -> list[str]:
    """The layers that show the whole network, without those whose maps are a single pixel, which is said."""
    from cifarnet.analysis.features import layers_with_places

    size, every = info.config.image_size, find_arch(info.config.arch).feature_layers
    layers = layers_with_places(model, size, every)
    if left := [name for name in every if name not in layers]:
        names = ", ".join(left)
        messages().say(f"left out: {names}, a single pixel each of images of {size} pixels")
    return layers


def draw_all(
    figures: "ImageFigures", files: Sequence[Path], out: Path, overwrite: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Draws each image into its folder in `out` and prints the paths, unless `quiet`; one that is no image is named.

    A folder that is there already is used with `overwrite` only, else one with a number.

    Returns:
        the file and the figures of each image that was drawn, and the scores of its maps, as plain JSON values.
    """
    from cifarnet.data.images.decode import ImageError

    documents, folders = [], set[Path]()
    for file in files:
        folder = free_folder(out / (file.stem or "image"), folders, overwrite)
        try:
            drawn = figures.draw(file, folder)
        except ImageError as error:
            messages().remark("error", spoken(str(error)))
            continue
        document: dict[str, Any] = {"image": str(file), "figures": [str(figure) for figure in drawn.figures]}
        if figures.deletion:
            document["deletion"] = [
                {"map": method, "layer": figures.layers[-1], "class": target.name, "probability": target.probability}
                | found.to_dict()
                for method, target, found in drawn.deletions
            ]
        documents.append(document)
        for figure in () if quiet else drawn.figures:
            print_path(figure)
    return documents


def free_folder(wanted: Path, taken: set[Path], overwrite: bool) -> Path:
    """`wanted`, with a number where another image of this call, or without `overwrite` of an earlier one, has that name."""
    folder, count = wanted, 1
    while folder in taken or (not overwrite and os.path.lexists(folder)):
        count += 1
        folder = wanted.with_name(f"{wanted.name}-{count}")
    taken.add(folder)
    return folder
