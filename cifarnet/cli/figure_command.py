"""The skeleton of a figure of a run: open it, pass images through it, draw, write the numbers, say where the figure is."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarnet.analysis.plots.titles import title_of
from cifarnet.cli import figures
from cifarnet.cli.common import print_path
from cifarnet.cli.grammar import add
from cifarnet.cli.run_option import Run
from cifarnet.core.config import TrainConfig

if TYPE_CHECKING:
    from cifarnet.analysis.features import Embeddings
    from cifarnet.engine.open_split import Opened

Out = Annotated[Path | None, typer.Option(help="PNG, SVG or PDF by its suffix (default: beside the checkpoint).")]
DataOut = Annotated[Path | None, typer.Option(help="Also write the numbers behind the figure (.json or .npz).")]
DataDir = Annotated[str | None, typer.Option(help="Where the data is (default: the run's, else the user's cache).")]
Title = Annotated[str | None, typer.Option(help="What stands above (default: model, loss, data set).")]
Split = Annotated[str, typer.Option(help="test, train, or val (what the run held out).")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the choice of images and the projection.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Samples = Annotated[int, typer.Option(min=0, max=10**9, help="Images, as many of each class (0: all of the split).")]

# What a figure's function returns: the numbers behind it, by name.
Numbers = Mapping[str, Any]
Draw = Callable[..., Numbers]


@dataclass(frozen=True)
class View:
    """A run's model with images of a split, its outputs for these, and where the figure goes under which title."""

    opened: "Opened"
    outputs: "Embeddings"
    split: str
    seed: int
    path: Path
    title: str | None

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.opened.info.classes

    @property
    def heading(self) -> str:
        """The title that was asked for, else model, loss, data set and split."""
        return self.title or title_of(self.opened.info.config, self.split)


def figure(app: typer.Typer, samples: int | None, file: str = "") -> Callable[[Draw], Draw]:
    """Makes `cifarnet visualize NAME` of a function: its docstring is the help, with examples, its parameters are options.

    The function is given a `View` first; it draws the figure and returns the numbers behind it.

    Args:
        app: the commands of `cifarnet visualize`.
        samples: default of --samples; None for all images of the split, without --samples and --seed.
        file: the file's name where --out gives none, with options in braces (default: the function's name).
    """

    def register(draw: Draw) -> Draw:
        def command(
            run: Run = None,
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

            name = (file or draw.__name__).format(**own)
            target = figures.destination(out, inputs.need_checkpoint(run), name, overwrite)
            data_out = figures.numbers_path(data_out, overwrite)
            opened = inputs.open_samples(run, data_dir, split, samples, seed, device)
            view = View(opened, inputs.embed_images(opened), split, seed, target, title)
            figures.write_numbers(data_out, draw(view, **own))
            print_path(target)

        unused = {"own"} if samples is not None else {"own", "samples", "seed"}
        first, *others = (p for name, p in inspect.signature(command).parameters.items() if name not in unused)
        _, *options = inspect.signature(draw).parameters.values()
        command.__signature__ = inspect.Signature([first, *options, *others])  # type: ignore[attr-defined]
        command.__doc__ = draw.__doc__
        add(app, draw.__name__, command)
        return draw

    return register
