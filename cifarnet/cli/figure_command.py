"""The skeleton of a figure of a run: open it, pass images through it, draw, write the numbers, say where the figure is."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import panel_names, title_of
from cifarnet.cli import figures
from cifarnet.cli.common import print_path
from cifarnet.cli.grammar import add
from cifarnet.cli.run_option import Run, Runs
from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.storage.run_names import checkpoint_names

if TYPE_CHECKING:
    from cifarnet.analysis.features import Embeddings
    from cifarnet.engine.open_split import Opened

Out = Annotated[
    Path | None,
    typer.Option(help="PNG, SVG or PDF (default: beside the checkpoint; of several runs, or of other images, here)."),
]
DataOut = Annotated[Path | None, typer.Option(help="Also write the numbers behind the figure (.json or .npz).")]
DataDir = Annotated[str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")]
Title = Annotated[str | None, typer.Option(help="What stands above (default: model, loss, data set).")]
Split = Annotated[str, typer.Option(help="test, train, or val (what the run held out).")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the choice of images and the projection.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Samples = Annotated[int, typer.Option(min=0, max=10**9, help="Images, as many of each class (0: all of the split).")]

# What a figure's function returns: for each panel the numbers behind it, by name.
Numbers = Mapping[str, Mapping[str, Any]]
Draw = Callable[..., Numbers]


@dataclass(frozen=True)
class View:
    """A run's model with images of a split, and its outputs for these."""

    opened: "Opened"
    outputs: "Embeddings"


@dataclass(frozen=True)
class Views:
    """The runs of a figure, by the names of their panels (one run alone has none), and where it goes under which title."""

    panels: Mapping[str, View]
    split: str
    seed: int
    path: Path
    title: str | None

    @property
    def only(self) -> View:
        """The one run of a figure that shows no more."""
        (view,) = self.panels.values()
        return view

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes.

        Raises:
            Refused: the runs have different ones.
        """
        names = [view.opened.info.classes for view in self.panels.values()]
        if any(other != names[0] for other in names):
            raise Refused("RUN", "the runs have different classes", "draw each in a figure of its own")
        return names[0]

    @property
    def heading(self) -> str:
        """The title that was asked for, else model, loss, data set and split, of several runs the split alone."""
        return self.headed(self.split)

    def headed(self, split: str = "") -> str:
        """As `heading`; the panels of several runs have the models' names."""
        if self.title is not None or len(self.panels) > 1:
            return self.title or (f"{split} images" if split else "")
        return title_of(self.only.opened.info.config, split)


def figure(app: typer.Typer, samples: int | None, file: str = "", several: bool = True) -> Callable[[Draw], Draw]:
    """Makes `cifarnet visualize NAME` of a function: its docstring is the help, with examples, its parameters are options.

    The function is given the `Views` first; it draws the figure and returns the numbers behind each panel.

    Args:
        app: the commands of `cifarnet visualize`.
        samples: default of --samples; None for all images of the split, without --samples and --seed.
        file: the file's name where --out gives none, with options in braces (default: the function's name).
        several: does it take several runs?
    """

    def register(draw: Draw) -> Draw:
        def command(
            run: Run = None,
            runs: Runs = None,
            samples: Samples = samples or 0,
            split: Split = "test",
            seed: Seed = TrainConfig.seed,
            data_dir: DataDir = None,
            device: Device = "auto",
            out: Out = None,
            title: Title = None,
            data_out: DataOut = None,
            overwrite: figures.Overwrite = False,
            **own: Any,
        ) -> None:
            from cifarnet.cli import inputs
            from cifarnet.storage.find_checkpoint import need_checkpoint

            asked: list[Path | None] = [*runs] if runs else [run]
            paths = [need_checkpoint(one) for one in asked]
            out, data_out = figures.asked_figure(out, overwrite), figures.numbers_path(data_out, overwrite)
            views = []
            for one in asked:
                opened = inputs.open_samples(one, data_dir, split, samples, seed, device)
                views.append(View(opened, inputs.embed_images(opened)))
            name = figures.of_split((file or draw.__name__).format(**own), split)
            homes = [figures.home_of_images(view.opened) for view in views]
            target = out or figures.unnamed(f"{name}.png", overwrite, *homes)
            found = draw(Views(named(views, paths), split, seed, target, title), **own)
            figures.write_numbers(data_out, found if len(views) > 1 else next(iter(found.values())))
            print_path(target)

        unused = {"own", "run" if several else "runs"} | (set() if samples is not None else {"samples", "seed"})
        first, *others = (p for name, p in inspect.signature(command).parameters.items() if name not in unused)
        _, *options = inspect.signature(draw).parameters.values()
        command.__signature__ = inspect.Signature([first, *options, *others])  # type: ignore[attr-defined]
        command.__doc__ = draw.__doc__
        add(app, draw.__name__, command)
        return draw

    return register


def named(views: Sequence[View], checkpoints: Sequence[Path]) -> dict[str, View]:
    """The runs by the names of their panels."""
    if len(views) == 1:
        return {"": views[0]}
    names = panel_names([view.opened.info.config for view in views], checkpoint_names(checkpoints))
    return dict(zip(names, views, strict=True))
