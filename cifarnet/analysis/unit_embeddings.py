"""Embeddings on the unit sphere, as numpy arrays with their labels: of a split or its unseen classes, or of image files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cifarnet.analysis.open_classes import open_classes
from cifarnet.core.config import IDENTITY
from cifarnet.core.errors import Failed, Refused, plural, printable
from cifarnet.engine.evaluate import embed_batches
from cifarnet.engine.open_split import Opened
from cifarnet.engine.predict import read_batches
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo

NAMED = 3  # images named in a message
TINY = 1e-12  # a shorter feature has no direction

T = TypeVar("T")


@dataclass(frozen=True)
class UnitEmbeddings:
    """Unit rows [N, D] float32, their labels int64 [N] (places in `classes`), and the image's name each."""

    vectors: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def followed_by(self, others: "UnitEmbeddings") -> "UnitEmbeddings":
        """These, then those of other classes."""
        labels = np.concatenate([self.labels, others.labels + len(self.classes)])
        vectors = np.concatenate([self.vectors, others.vectors])
        return UnitEmbeddings(vectors, labels, self.classes + others.classes, self.names + others.names)


def embed_classes(opened: Opened, classes: str | None = None, flip: bool = False) -> UnitEmbeddings:
    """The unit embeddings of an opened split, of the classes that the model was trained on, of the others, or of all.

    Args:
        classes: as `open_classes`.
        flip: add the mirrored image's features before normalising.

    Raises:
        Refused: as `open_classes`; else as `embed_split`.
    """
    return embed_parts(open_classes(opened, classes), flip)


def embed_parts(parts: Sequence[Opened], flip: bool = False) -> UnitEmbeddings:
    """The unit embeddings of the one or two parts that `open_classes` makes of a split. Raises as `embed_split`."""
    first, *others = [embed_split(part, flip) for part in parts]
    return first.followed_by(others[0]) if others else first


def embed_split(opened: Opened, flip: bool = False) -> UnitEmbeddings:
    """The unit embeddings of all images of an opened split, in its order.

    Raises:
        Refused: `flip` where the model takes features. Failed: some have no direction (NaN, infinite or zero features).
    """
    if flip and opened.info.config.arch == IDENTITY:
        raise Refused("flip", "the model takes features, which have no mirror image", "leave it out")
    rows, sound, labels = [], [], []
    batches = opened.loader.epoch(0)
    for embedded, targets in features_of(opened.model, batches, opened.device, opened.precision, flip):
        units, usable = normalised(embedded.cpu().numpy())
        rows.append(units)
        sound.append(usable)
        labels.append(targets.cpu().numpy())
    numbers, classes = np.concatenate(labels), tuple(opened.info.classes)
    names = tuple(f"image {place} ({classes[label]})" for place, label in enumerate(numbers.tolist()))
    lost = [names[place] for place in np.flatnonzero(~np.concatenate(sound))]
    if lost:
        raise Failed("embeddings", without_direction(lost), "take an earlier checkpoint, or look at these images")
    return UnitEmbeddings(np.concatenate(rows), numbers, classes, names)


@dataclass(frozen=True)
class Embedder:
    """A model, the device that it runs on, and whether the mirrored image's features are added.

    Args:
        model, info: as `load_model` returns them.
    """

    model: Classifier
    info: ModelInfo
    device: torch.device
    flip: bool = False


def embed_files(
    embedder: Embedder, files: Sequence[Any], labels: Sequence[int] | np.ndarray, classes: Sequence[str]
) -> tuple[UnitEmbeddings, list[str], list[str]]:
    """The unit embeddings of image files; a file that cannot be used is left out and named, the others are done.

    Args:
        files: as `cifarnet.engine.predict.predict_images` takes them; labels: the place of each in `classes`.

    Returns:
        the embeddings; one line for each file left out; remarks on files. All are fit for the user.
    """
    model, device = embedder.model.to(embedder.device), embedder.device
    batches = read_batches(files, embedder.info, device, crop=False)
    rows, kept, names, errors, remarks, place = [], [], [], [], [], 0
    for embedded, found in features_of(model, batches, device, "fp32", embedder.flip):
        units, usable = normalised(embedded.cpu().numpy())
        row = 0
        for one in found:
            remarks += one.warnings
            if one.error is not None:
                errors.append(one.error)
            else:
                if usable[row]:
                    rows.append(units[row])
                    kept.append(int(labels[place]))
                    names.append(one.file)
                else:
                    errors.append(f"{printable(one.file)}: {without_direction()}")
                row += 1
            place += 1
    vectors = np.stack(rows) if rows else np.empty((0, model.head.in_features), np.float32)
    return UnitEmbeddings(vectors, np.array(kept, np.int64), tuple(classes), tuple(names)), errors, remarks


@torch.inference_mode()
def features_of(
    model: Classifier, batches: Iterable[tuple[Tensor, T]], device: torch.device, precision: str, flip: bool
) -> Iterator[tuple[Tensor, T]]:
    """Features [B, E] fp32 of each batch; with `flip` those of the mirrored images are added."""
    if not flip:
        for features, beside in embed_batches(model, batches, device, precision):
            yield features.float(), beside
        return
    views = (view for images, beside in batches for view in ((images, beside), (images.flip(3), beside)))
    embedded = embed_batches(model, views, device, precision)
    for features, beside in embedded:
        mirrored, _ = next(embedded)
        yield features.float() + mirrored.float(), beside


def normalised(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length one, float32 [N, D], and where the features [N, D] have a direction, bool [N] (elsewhere zeros)."""
    wide = features.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    usable = np.isfinite(lengths) & (lengths > TINY)
    units = np.zeros(features.shape, np.float32)
    units[usable] = (wide[usable] / lengths[usable, None]).astype(np.float32)
    return units, usable


def without_direction(names: Sequence[str] = ()) -> str:
    """In words, that these images have no usable embedding."""
    why = "the features are not finite, or all zero"
    if not names:
        return why
    more = ", …" if len(names) > NAMED else ""
    return f"{why}, of {plural(len(names), 'image')}: {', '.join(names[:NAMED])}{more}"
