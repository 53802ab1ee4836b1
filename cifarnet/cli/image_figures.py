"""The figures of one image: what each layer makes of it, where the evidence for a class lies, and how good that map is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarnet.cli.common import messages
from cifarnet.core.errors import printable
from cifarnet.core.percent import percent

if TYPE_CHECKING:
    from torch import Tensor

    from cifarnet.analysis.deletion import Deletion
    from cifarnet.models.classifier import Classifier
    from cifarnet.models.model_info import ModelInfo

CAM_SIDE = 224  # pixels at which an image is shown under its heat map
SHOWN = 3  # classes, where none is named


@dataclass(frozen=True)
class Target:
    """A class that is explained, with its probability for the image; `short` is its name in a figure."""

    index: int
    name: str
    short: str
    probability: float

    @property
    def label(self) -> str:
        """The class and its probability."""
        return f"{self.short} ({percent(self.probability, 1)})"


@dataclass
class Drawn:
    """The pictures made of an image: the figures, and for each map of a class its deletion, in the order they were made."""

    figures: list[Path] = field(default_factory=list)
    deletions: list[tuple[str, Target, "Deletion"]] = field(default_factory=list)


@dataclass(frozen=True)
class ImageFigures:
    """The figures that one model makes of an image.

    Args:
        layers: those that are drawn; the last is where `cams` look.
        cams: of `CAMS` in analysis/cam.py.
        deletion: are the maps scored too?
        target: the class that is explained (None: the likeliest ones).
    """

    model: "Classifier"
    info: "ModelInfo"
    layers: Sequence[str]
    channels: int
    crop: bool
    cams: Sequence[str]
    deletion: bool
    target: str | None
    title: str

    def draw(self, file: Path, folder: Path) -> Drawn:
        """Draws the overview, a grid a layer, and what else is asked for.

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
        pixels, name = normalize(image, self.info.mean, self.info.std), printable(file.name)
        maps = feature_maps(self.model, pixels, self.layers)
        heats = list(self.heats(pixels))  # before anything is drawn, since a layer may be refused
        title, drawn = joined(self.title, name), Drawn()
        drawn.figures.append(picture.draw_overview(image, maps, folder / "overview.png", title))
        drawn.figures += [picture.draw_channels(one, self.channels, folder / f"{one.name}.png", title) for one in maps]
        if self.cams:
            large, _ = read_image(file, CAM_SIDE, crop=self.crop)
            self.draw_cams(large, heats, folder, name, drawn)
        if self.deletion:
            self.draw_deletion(pixels, heats, folder, name, drawn)
        return drawn

    def heats(self, pixels: "Tensor") -> Iterator[tuple[str, Target, "Tensor"]]:
        """The heat map of each method for each class that is explained, of the layer's size."""
        from cifarnet.analysis.cam import class_map

        if not self.cams:
            return
        targets = self.targets(pixels)
        for method in self.cams:
            for target in targets:
                yield method, target, class_map(self.model, pixels, target.index, self.layers[-1], method)

    def targets(self, pixels: "Tensor") -> list[Target]:
        """The class asked for, or the likeliest ones."""
        import torch

        from cifarnet.analysis.plots.text import short_names
        from cifarnet.models.calibration import probabilities

        with torch.no_grad():
            found = probabilities(self.model(pixels[None]), self.info.calibration)[0]
        likeliest: Any = found.argsort(descending=True)[:SHOWN].tolist()
        classes = self.info.classes
        chosen = [classes.index(self.target)] if self.target is not None else likeliest
        names = short_names([classes[index] for index in chosen], 14)
        return [Target(i, classes[i], name, float(found[i])) for i, name in zip(chosen, names, strict=True)]

    def draw_cams(
        self, large: "Tensor", heats: list[tuple[str, Target, "Tensor"]], folder: Path, name: str, drawn: Drawn
    ) -> None:
        """A picture for each method."""
        from cifarnet.analysis.cam import CAMS, upsample
        from cifarnet.analysis.plots import featuremaps as picture

        for method in self.cams:
            shown = [(target.label, upsample(heat, CAM_SIDE)) for by, target, heat in heats if by == method]
            title = joined(f"{CAMS[method]} at {self.layers[-1]}", self.title) + f"\n{name}"
            drawn.figures.append(picture.draw_cam(large, shown, folder / f"{method}.png", title))

    def draw_deletion(
        self, pixels: "Tensor", heats: list[tuple[str, Target, "Tensor"]], folder: Path, name: str, drawn: Drawn
    ) -> None:
        """Scores the maps and draws their curves, a panel a class."""
        from cifarnet.analysis.cam import CAMS, upsample
        from cifarnet.analysis.deletion import Eraser, colour_of_removed
        from cifarnet.analysis.plots import deletion as picture

        eraser = Eraser(self.model, pixels, heats[0][2].shape, self.info.calibration)
        panels: dict[str, dict[str, Deletion]] = {}
        for method, target, heat in heats:
            found = eraser.score(upsample(heat, pixels.shape[-1]), target.index)
            drawn.deletions.append((method, target, found))
            panels.setdefault(target.label, {})[CAMS[method]] = found
        title = joined(f"Deletion by maps of {self.layers[-1]}", self.title) + f"\n{name}"
        colour = colour_of_removed(self.info.mean)
        drawn.figures.append(picture.draw(panels, folder / "deletion.png", colour, title))


def joined(*parts: str) -> str:
    """Those parts of a title that are not empty, in one line."""
    return " · ".join(filter(None, parts))
