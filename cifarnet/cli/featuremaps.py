"""`cifarnet featuremaps IMAGE`: an image -> what each layer makes of it, and Grad-CAM on request."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.cli.common import messages, print_json, print_path
from cifarnet.cli.figures import Overwrite
from cifarnet.cli.options import spoken
from cifarnet.core.errors import Failed, Refused, plural, printable
from cifarnet.models import find_arch

if TYPE_CHECKING:
    from torch import Tensor

    from cifarnet.models.checkpoint import ModelInfo
    from cifarnet.models.classifier import Classifier

CAM_SIDE = 224  # pixels at which an image is shown under its heat map


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
    target: Annotated[
        str | None, typer.Option("--class", help="The class of --grad-cam (default: the three likeliest).")
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
    """Draw what each layer makes of an image: a grid of channels a layer, an overview of the network, Grad-CAM.

    Examples:
        cifarnet featuremaps photo.jpg
        cifarnet featuremaps photo.jpg --grad-cam --run runs/latest --out maps
    """
    from cifarnet.analysis.plots.titles import title_of
    from cifarnet.cli.headline import say_model
    from cifarnet.data.images.decode import find_images
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    files = find_images(images, recursive)
    path = default_checkpoint(run)
    model, info = load_model(path)
    if target is not None and target not in info.classes:
        raise Refused("--class", f"the model has no class '{target}'", f"choose from {', '.join(info.classes[:100])}")
    if target is not None and not grad_cam:
        raise Refused("--class", "names the class of --grad-cam", "add --grad-cam")
    if out.is_file():
        raise Refused(str(out), "is a file", "name a folder with --out")
    say_model(messages(), path, model, info, named=run is not None)
    figures = ImageFigures(model, info, layer or [], channels, crop, grad_cam, target, title or title_of(info.config))
    documents = draw_all(figures, files, out, overwrite, quiet=json_output)
    if json_output:
        print_json({"checkpoint": str(path), "images": documents})
    if bad := len(files) - len(documents):
        raise Failed("featuremaps", f"{bad} of {plural(len(files), 'file')} could not be used", "see the lines above")


def draw_all(
    figures: "ImageFigures", files: Sequence[Path], out: Path, overwrite: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Draws each image into its folder in `out` and prints the paths, unless `quiet`; one that is no image is named.

    A folder that is there already is used with `overwrite` only, else one with a number.

    Returns:
        the file and the figures of each image that was drawn, as plain JSON values.
    """
    from cifarnet.data.images.decode import ImageError

    documents, folders = [], set[Path]()
    for file in files:
        folder = free_folder(out / (file.stem or "image"), folders, overwrite)
        try:
            done = [str(figure) for figure in figures.draw(file, folder)]
        except ImageError as error:
            messages().remark("error", spoken(str(error)))
            continue
        documents.append({"image": str(file), "figures": done})
        if not quiet:
            for figure in done:
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


@dataclass(frozen=True)
class ImageFigures:
    """The figures that one model makes of an image; no `layers` are those of its architecture's row."""

    model: "Classifier"
    info: "ModelInfo"
    layers: Sequence[str]
    channels: int
    crop: bool
    grad_cam: bool
    target: str | None
    title: str

    def draw(self, file: Path, folder: Path) -> list[Path]:
        """The overview, a grid a layer and the heat maps where they are asked for; their paths.

        Raises:
            ImageError: the file is no image.
        """
        from cifarnet.analysis.features import feature_maps
        from cifarnet.analysis.plots import featuremaps as picture
        from cifarnet.data.images.decode import read_image
        from cifarnet.data.images.normalize import normalize

        image, warnings = read_image(file, self.info.config.image_size, crop=self.crop)
        for warning in warnings:
            messages().remark("warning", warning)
        row, name = find_arch(self.info.config.arch), printable(file.name)
        pixels = normalize(image, self.info.mean, self.info.std)
        maps = feature_maps(self.model, pixels, self.layers or row.feature_layers)
        title = f"{self.title} · {name}"
        done = [picture.draw_overview(image, maps, folder / "overview.png", title)]
        done += [picture.draw_channels(one, self.channels, folder / f"{one.name}.png", title) for one in maps]
        if self.grad_cam:
            layer = self.layers[-1] if self.layers else row.grad_cam_layer
            large, _ = read_image(file, CAM_SIDE, crop=self.crop)
            title = f"Grad-CAM at {layer} · {self.title}\n{name}"
            done.append(picture.draw_cam(large, self.heat_maps(pixels, layer), folder / "grad-cam.png", title))
        return done

    def heat_maps(self, pixels: "Tensor", layer: str) -> list[tuple[str, "Tensor"]]:
        """A label and a heat map [CAM_SIDE, CAM_SIDE] for the class asked for, or for the three likeliest."""
        import torch

        from cifarnet.analysis.features import grad_cam, upsample
        from cifarnet.analysis.plots.text import shorten

        with torch.no_grad():
            probabilities = self.model(pixels[None])[0].softmax(dim=0)
        likeliest = probabilities.argsort(descending=True)[:3].tolist()
        heats = []
        for index in [self.info.classes.index(self.target)] if self.target else likeliest:
            label = f"{shorten(self.info.classes[index], 14)} ({100 * probabilities[index]:.1f}%)"
            heats.append((label, upsample(grad_cam(self.model, pixels, index, layer), CAM_SIDE)))
        return heats
