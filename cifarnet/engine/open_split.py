"""A split of the data that a trained model was trained on, or of another set of the same classes, as the model wants it."""

from collections.abc import Callable
from pathlib import Path

import torch

from cifarnet.core.devices import pick_device, pick_precision, precision_here
from cifarnet.core.errors import Refused
from cifarnet.data import Dataset, Loader, hold_out, load, load_options
from cifarnet.models.checkpoint import ModelInfo

SPLITS = ("test", "train", "val")


def open_split(
    info: ModelInfo,
    split: str = "test",
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    batch_size: int = 500,
    device: str = "auto",
    precision: str | None = None,
    load: Callable[..., Dataset] = load,
) -> tuple[Loader, torch.device, str]:
    """The loader of a split, the device and the precision.

    Args:
        split: test, train, or val (what the run held out).
        dataset, data_dir: None takes the run's.
        precision: None takes the run's, or auto where bf16 would be the slower here.
        load: reads a data set, as `cifarnet.data.load` does.

    Raises:
        Refused: an unknown split, classes that are not the model's, a run that held nothing out.
    """
    config = info.config
    if split not in SPLITS:
        raise Refused("split", f"'{split}' is not known", f"choose from {', '.join(SPLITS)}")
    if split == "val" and config.val_fraction == 0:
        raise Refused("split", "the run held no validation images out", "choose test or train")
    target = pick_device(device)
    name = dataset or config.dataset
    data = load(name, data_dir or config.data_dir, **load_options(config, name))
    if data.classes != info.classes:
        why = f"its {len(data.classes)} classes are not the model's {len(info.classes)}"
        raise Refused("dataset", why, "name the data set that the model was trained on")
    images = data.test if split == "test" else data.train
    if split != "test" and config.val_fraction > 0:
        train, validation = hold_out(data.train, config.val_fraction, config.seed)
        images = train if split == "train" else validation
    loader = Loader(images, batch_size, target, mean=info.mean, std=info.std, shuffle=False)
    chosen = pick_precision(precision, target) if precision else precision_here(config.precision, target)
    return loader, target, chosen
