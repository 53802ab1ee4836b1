"""`cifarnet train --animate`: a frame of the sphere after each epoch, a GIF at the end."""

from pathlib import Path
from typing import Any

from cifarnet.analysis.embedding import choose_balanced, on_sphere
from cifarnet.analysis.features import embed
from cifarnet.analysis.plots import animation, sphere
from cifarnet.analysis.plots.titles import title_of
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data import Loader
from cifarnet.engine.train_state import TrainState
from cifarnet.losses import loss_constants

SAMPLES = 300  # test images in a frame


def check_animation(config: TrainConfig) -> None:
    """Refuses --animate for features that have more than three dimensions, several prototypes a class, and a spread head."""
    if config.embed_dim not in (2, 3):
        raise Refused("--animate", "draws features of 2 or 3 dimensions", "add --embed-dim 3")
    if config.prototypes == "simplex":
        raise Refused("--animate", "draws features of 2 or 3 dimensions, a simplex has more", "leave one of them out")
    if config.loss == "subcenter-arcface" and loss_constants(config.loss, config.loss_options)["subcenters"] > 1:
        raise Refused("--animate", "draws one prototype a class", "add --subcenters 1, or use --loss arcface")
    if config.head_parallel:
        raise Refused("--animate", "needs all prototypes in one process", "leave --head-parallel out")


class SphereFrames:
    """Keeps a frame an epoch in the run's folder `frames`, so that a resumed run goes on with its animation.

    Args:
        keep: leave alone what is there, for a caller that only draws.
    """

    def __init__(self, run: TrainState, path: Path, keep: bool = False) -> None:
        self.run, self.gif, self.folder = run, path / "sphere.gif", path / "frames"
        split = run.test.split
        chosen = choose_balanced(split.labels.cpu(), SAMPLES, run.config.seed)
        part: Any = split.subset(chosen)
        self.images = Loader(part, 500, run.device, mean=run.mean, std=run.std, shuffle=False)  # type: ignore[arg-type]
        if run.progress.epoch == 0 and not keep:  # frames that a run before this one left
            for path in self.folder.glob("*.png"):
                path.unlink()

    def frame(self, epoch: int) -> Path:
        """Where the frame of an epoch lies."""
        return self.folder / f"{epoch:05d}.png"

    def add(self, epoch: int) -> None:
        """Draws the frame of the epoch that has just ended."""
        self.draw(epoch, self.frame(epoch))

    def draw(self, epoch: int, path: Path) -> Path:
        """Draws the model as it is after this epoch."""
        run = self.run
        images = embed(run.model, self.images.epoch(0), run.device, run.precision)
        drawn, _ = on_sphere(run.model, images)
        title = f"{title_of(run.config)} · epoch {epoch} of {run.config.epochs}"
        return sphere.draw({"": (drawn, images.labels.numpy())}, run.classes, path, title)

    def finish(self) -> Path | None:
        """Joins the frames into sphere.gif; None where there are none."""
        frames = sorted(self.folder.glob("*.png"))
        return animation.write_gif(frames, self.gif) if frames else None
