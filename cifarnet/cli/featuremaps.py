"""`cifarnet featuremaps IMAGE`: an image -> what each layer makes of it, and Grad-CAM on request."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cifarnet.cli.common import messages, print_json, printable
from cifarnet.core.errors import Failed, Refused

if TYPE_CHECKING:
    from cifarnet.models.checkpoint import ModelInfo
    from cifarnet.models.classifier import Classifier

CAM_SIDE = 224  # pixels at which an image is shown under its heat map


def featuremaps(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders with --recursive.", show_default=False)],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A run folder or checkpoint (default: runs/latest, else the weights in the package)."),
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
    title: Annotated[str | None, typer.Option(help="What stands above (default: model, loss, data set).")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw what each layer makes of an image: a grid of channels a layer, an overview of the network, Grad-CAM."""
    from cifarnet.data.images.decode import ImageError, find_images
    from cifarnet.models.checkpoint import load_model
    from cifarnet.storage.find_checkpoint import default_checkpoint

    files = find_images(images, recursive)
    path, note = default_checkpoint(checkpoint)
    model, info = load_model(path)
    if target is not None and target not in info.classes:
        raise Refused("--class", f"the model has no class '{target}'", f"choose from {', '.join(info.classes[:100])}")
    if target is not None and not grad_cam:
        raise Refused("--class", "names the class of --grad-cam", "add --grad-cam")
    if out.is_file():
        raise Refused(str(out), "is a file", "name a folder with --out")
    console = messages()
    if note:
        console.print(note)
    from cifarnet.cli.figures import title_of

    heading = title or title_of(info.config)
    documents, bad, folders = [], 0, set[Path]()
    for file in files:
        folder = free_folder(out / (file.stem or "image"), folders)
        try:
            done = draw_image(file, model, info, layer or [], channels, crop, folder, heading)
            if grad_cam:
                done.append(draw_grad_cam(file, model, info, target, layer or [], crop, folder, heading))
        except ImageError as error:
            console.print(f"error: {error}", markup=False)
            bad += 1
            continue
        documents.append({"image": str(file), "figures": [str(figure) for figure in done]})
        if not json_output:
            for figure in done:
                print(printable(str(figure)))
    if json_output:
        print_json({"checkpoint": str(path), "images": documents})
    if bad:
        raise Failed("featuremaps", f"{bad} of {len(files)} files could not be used", "see the lines above")


def free_folder(wanted: Path, taken: set[Path]) -> Path:
    """`wanted`, with a number where another image of this call has that name already."""
    folder, count = wanted, 1
    while folder in taken:
        count += 1
        folder = wanted.with_name(f"{wanted.name}-{count}")
    taken.add(folder)
    return folder


def draw_image(
    file: Path,
    model: "Classifier",
    info: "ModelInfo",
    layers: list[str],
    channels: int,
    crop: bool,
    folder: Path,
    heading: str,
) -> list[Path]:
    """The overview and a grid a layer; their paths."""
    from cifarnet.analysis.features import feature_maps, normalize_image
    from cifarnet.analysis.plots import featuremaps as picture
    from cifarnet.data.images.decode import read_image

    image, warnings = read_image(file, info.config.image_size, crop=crop)
    for warning in warnings:
        messages().print(f"warning: {printable(warning)}", markup=False)
    maps = feature_maps(model, normalize_image(image, info.mean, info.std), layers)
    title = f"{heading} · {printable(file.name)}"
    done = [picture.draw_overview(image, maps, folder / "overview.png", title)]
    done += [picture.draw_channels(one, channels, folder / f"{one.name}.png", title) for one in maps]
    return done


def draw_grad_cam(
    file: Path,
    model: "Classifier",
    info: "ModelInfo",
    target: str | None,
    layers: list[str],
    crop: bool,
    folder: Path,
    heading: str,
) -> Path:
    """Heat maps of the class asked for, or of the three likeliest; the path."""
    import torch

    from cifarnet.analysis.features import grad_cam, normalize_image, upsample
    from cifarnet.analysis.plots import featuremaps as picture
    from cifarnet.data.images.decode import read_image

    image, _ = read_image(file, info.config.image_size, crop=crop)
    pixels = normalize_image(image, info.mean, info.std)
    with torch.no_grad():
        probabilities = model(pixels[None])[0].softmax(dim=0)
    likeliest = probabilities.argsort(descending=True)[:3].tolist()
    heats, name = [], ""
    for index in [info.classes.index(target)] if target else likeliest:
        heat, name = grad_cam(model, pixels, index, layers[-1] if layers else None)
        label = f"{info.classes[index]} ({100 * probabilities[index]:.1f}%)"
        heats.append((label, upsample(heat, CAM_SIDE)))
    shown, _ = read_image(file, CAM_SIDE, crop=crop)
    title = f"Grad-CAM at {name} · {heading}\n{printable(file.name)}"
    return picture.draw_cam(shown, heats, folder / "grad-cam.png", title)
