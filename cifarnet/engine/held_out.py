"""A calibration for a model that is trained already, from images that it has neither trained on nor is tested on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cifarnet.core.config import IDENTITY
from cifarnet.core.errors import Refused, plural
from cifarnet.data import AnySplit, Dataset, load, load_options
from cifarnet.data.dataset import Split
from cifarnet.data.identity import identity_of_split, parse_identity
from cifarnet.data.shaping import shape
from cifarnet.engine.calibrate import calibration_document, fit_calibration
from cifarnet.engine.evaluate import collect_logits, only_coarse
from cifarnet.engine.open_split import Opened, folder_of, of_test, open_split
from cifarnet.engine.same_data import unlike_training
from cifarnet.models.checkpoint import load_model, save_model
from cifarnet.models.model_info import ModelInfo

SET = "say of what kind `data_dir` is with `dataset`, for example 'folder'"
NEW = "name a set of other images with `dataset` and `data_dir`, or train with `val_fraction`"


def open_held_out(path: Path, dataset: str | None = None, **options: Any) -> Opened:
    """The model of a checkpoint with the images that it is calibrated on.

    Args:
        dataset: a set all of whose training images are taken; None: the images that the run held out.
        options: as `open_split`.

    Raises:
        Refused: the run held none out, these are not the images that it was begun with, or images of another set are among
            those of its training or test.
    """
    model, info = load_model(path, of_features=True)
    if only_coarse(len(info.classes)):
        why = f"of {len(info.classes):,} classes only loss and accuracy are measured"
        raise Refused("calibrate", why, "take a run of fewer classes")
    if info.config.arch == IDENTITY:
        raise Refused("calibrate", "this model has no images", "take a run of an image classifier")
    if dataset is None:
        if info.config.val_fraction == 0:
            named = options.get("data_dir") is not None
            raise Refused("calibrate", "the run held no images out", SET if named else NEW)
        opened = open_split(path, model, info, "val", **options)
        check_held_out(opened)
        return opened
    # As it is: what shaped the run's training images, wrong labels among it, is not done to these.
    plain = replace(info, config=of_test(info.config))
    opened = open_split(path, model, plain, "train", dataset=dataset, **options)
    check_apart(opened.loader.split, info, options.get("load", load))
    return replace(opened, info=info)


def check_held_out(opened: Opened) -> None:
    """Raises Refused where the data is not that of the training: other images would be held out of it, those trained on among them."""
    changed = unlike_training(opened.info, shape(opened.data, opened.shaping))
    if changed:
        why = f"the data is not as in training ({'; '.join(changed)}), and so is what is held out of it"
        raise Refused(
            "calibrate", why, "name the folder of the training with `data_dir`, or another set with `dataset`"
        )


def check_apart(images: AnySplit, info: ModelInfo, read: Callable[..., Dataset]) -> None:
    """Raises Refused where some of `images` are among those that the run was trained on or is tested on.

    They are told by their pixels. Where the run's own data is not at hand whole sets are told by their digests.
    """
    known, count = parse_identity(info.data), len(images)
    if known and any(identity_of_split(images).same_images(split) for split in (known.train, known.test)):
        raise Refused("calibrate", "these are images of the run's own training or test", NEW)
    if not isinstance(images, Split):
        return
    try:
        own = read(info.config.dataset, folder_of(info.config, info.config.dataset, None), **load_options(info.config))
    except Refused:
        return
    seen = [rows(split.image_hashes) for split in (own.train, own.test) if isinstance(split, Split)]
    if seen and (shared := int(np.isin(rows(images.image_hashes), np.concatenate(seen)).sum())):
        raise Refused("calibrate", f"{shared:,} of {plural(count, 'image')} are in the run's own training or test", NEW)


def rows(hashes: Tensor) -> np.ndarray:
    """[N] of 32 bytes each, of uint8 [N, 32]."""
    return np.ascontiguousarray(hashes.numpy()).view("S32").ravel()


def calibrate(opened: Opened) -> dict[str, Any]:
    """Fits a calibration on the opened images and writes it into the checkpoint; returns what was fitted, as JSON values.

    Raises:
        Refused: no finite temperature is best. Failed: the checkpoint cannot be written.
    """
    # In fp32, as predict and export compute.
    logits, labels = collect_logits(opened.model, opened.loader.epoch(0), opened.device, "fp32")
    logits, labels = logits.cpu(), labels.cpu()
    source = "validation images of the training" if opened.split == "val" else f"training images of {opened.dataset}"
    found = fit_calibration(logits, labels, source)
    save_model(opened.path, opened.model, replace(opened.info, calibration=found))
    return {"checkpoint": str(opened.path)} | calibration_document(logits, labels, found)
