"""The line that eval, predict, figures and report begin with: which model this is, and what it is shown."""

from pathlib import Path
from typing import TYPE_CHECKING

from cifarnet.core.errors import plural
from cifarnet.data.shape_options import shaping_words
from cifarnet.engine.same_data import UNKNOWN
from cifarnet.losses.options import MarginOptions
from cifarnet.storage.find_checkpoint import is_packaged, newer_note
from cifarnet.storage.runs import own_name

if TYPE_CHECKING:
    from cifarnet.cli.terminal import Terminal
    from cifarnet.engine.open_split import Opened
    from cifarnet.models.calibration import Calibration
    from cifarnet.models.classifier import Classifier
    from cifarnet.models.model_info import ModelInfo

OWN = ("best", "last", "best.safetensors.index", "last.safetensors.index")  # stems of a run's checkpoints


def named_loss(options: MarginOptions) -> str:
    """The loss with scale and margin, as far as it has them: SphereFace has no s, MagFace no m."""
    letters = {"scale": "s", "margin": "m"}
    has = [f"{letters[name]} = {options[name]:g}" for name in letters if name in options.constants]
    return f"{options.loss} ({', '.join(has)})"


def head_line(path: Path, model: "Classifier", info: "ModelInfo", shown: str = "") -> str:
    """Run, architecture, loss, data, epoch and seed of a checkpoint.

    Args:
        shown: what the model is measured on; else the name of the data that it was trained on.
    """
    config, options = info.config, model.head.options
    loss = named_loss(options) if options else config.loss
    where = "the model that ships with cifarnet" if is_packaged(path) else name_of(path)
    words = shaping_words(config)
    trained = (shown or config.dataset) + (f" ({words})" if words else "")
    return f"{where}: {config.arch}, {loss}, {trained}, epoch {info.epoch}, seed {config.seed}"


def name_of(path: Path) -> str:
    """The run of a checkpoint, by its own name where it was found through a link; the file itself where it is in no run."""
    folder = path.parent
    if path.stem not in OWN or not (folder / "config.json").exists():
        return str(path)
    return str(own_name(folder))


def calibration_line(calibration: "Calibration | None") -> str:
    """Are the probabilities calibrated, and on how many images?"""
    if calibration is None:
        return "probabilities: not calibrated"
    fitted = f"temperature {calibration.temperature:.3g}, of {plural(calibration.images, 'held-out image')}"
    return f"probabilities: calibrated ({fitted})"


def say_model(console: "Terminal", path: Path, model: "Classifier", info: "ModelInfo", named: bool) -> None:
    """Says on stderr which model is used; where the user `named` none, also what became of a newer run."""
    note = "" if named or is_packaged(path) else newer_note(path)
    console.say(head_line(path, model, info) + note)


def say_opened(console: "Terminal", opened: "Opened", named: bool) -> None:
    """As `say_model`, with data set, split and number of images, and whether these are those of the training."""
    count = len(opened.loader.split)
    kind = "samples" if opened.info.config.arch == "identity" else "images"
    shown = f"{opened.dataset} {opened.split}, {count:,} {kind if count != 1 else kind[:-1]}"
    note = "" if named else newer_note(opened.path)
    console.say(head_line(opened.path, opened.model, opened.info, shown) + note)
    if opened.as_in_training is False:
        console.say(f"note: these are not the {opened.split} images that the run was trained with")
    elif opened.as_in_training is None and opened.split == "val" and opened.dataset == opened.info.config.dataset:
        console.say(f"note: the run {UNKNOWN}")
