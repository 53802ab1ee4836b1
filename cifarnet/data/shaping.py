"""The training split as a run wants it: without some classes, smaller, with a long tail, with wrong labels.

The parts apply in this order: canonical order, classes held out, subset, long tail, label noise; then images held out for
validation. Each draws from (its name, seed) alone, so that one seed makes one split of the same images in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cifarnet.core.config import TrainConfig
from cifarnet.core.errors import Refused
from cifarnet.data.dataset import CHUNK, AnySplit, Channels, Dataset, Split, channel_statistics, hold_out
from cifarnet.data.hashing import order_by_hash
from cifarnet.data.identity import DataIdentity, identity_of
from cifarnet.data.images.index import statistics
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.selection import held_out_classes, long_tail, noisy, renumbered, stratified
from cifarnet.data.shape_options import shaping_options


@dataclass(frozen=True, eq=False)
class Shaped:
    """A data set as a run takes it.

    Args:
        source: as it was loaded.
        dataset: with the classes that are trained; `train` still holds the validation images.
        train: what is trained on; validation: what is held out of it, None without `val_fraction`.
    """

    source: Dataset
    dataset: Dataset
    train: AnySplit
    validation: AnySplit | None

    def identity(self) -> DataIdentity:
        """That of what is trained on and measured on, with the digest of the source."""
        source = identity_of(self.source.classes, self.source.train, self.source.test)
        if self.train is self.source.train and self.dataset.test is self.source.test:
            return source
        return identity_of(self.dataset.classes, self.train, self.dataset.test, source)


def in_class_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The data set with its classes in the order of `classes`, where these are the same names in another order; else as it is.

    Names in Unicode's decomposed form, as macOS writes them, were sorted as such once, and composed since: é then comes
    after z. Images that lie class by class lie so in the new order too.
    """
    same_names = len(set(classes)) == len(classes) and sorted(classes) == sorted(dataset.classes)
    if dataset.classes == classes or not same_names:
        return dataset
    place = {name: number for number, name in enumerate(classes)}
    numbers = torch.tensor([place[name] for name in dataset.classes])

    def moved(split: AnySplit) -> AnySplit:
        labels = numbers[split.labels]
        if bool((split.labels.diff() >= 0).all()):
            order = labels.argsort(stable=True)
            return relabelled(split.subset(order), labels[order])
        return relabelled(split, labels)

    return replace(dataset, classes=tuple(classes), train=moved(dataset.train), test=moved(dataset.test))


def shape(dataset: Dataset, config: TrainConfig) -> Shaped:
    """The data set that a run under `config` trains on and is measured on, of `dataset` as it was loaded.

    The test split is not changed, but that classes held out of training are held out of it too.

    Raises:
        Refused: classes that are not there or too many, more images than there are, a set that cannot be sorted.
    """
    if shaping_options(config) or config.val_fraction:
        for part in (dataset.train, dataset.test):
            if isinstance(part, Split):
                part.hash_now()
    shaped = shape_splits(dataset, config)
    if config.val_fraction == 0:
        return Shaped(dataset, shaped, shaped.train, None)
    # Validation images come out of the shaped split and keep its wrong labels: they stand for what a practitioner has, and
    # one who knew which labels are right would train on those. The test images tell what was learned in spite of the noise.
    return Shaped(dataset, shaped, *hold_out(shaped.train, config.val_fraction, config.seed, shaped.classes))


def shape_splits(dataset: Dataset, config: TrainConfig) -> Dataset:
    """The data set under all options but `val_fraction`; the same object where none of them is given."""
    if not shaping_options(config):
        return dataset
    source, test, seed = dataset.train, dataset.test, config.seed
    if not isinstance(source, Split | StreamedSplit):
        raise Refused(f"`{next(iter(shaping_options(config)))}`", f"{dataset.name} has no images", "leave it out")
    index = torch.arange(len(source))
    if config.canonical_order:
        index, test = canonical_order(source), test.subset(canonical_order(test))
    labels, classes = source.labels[index], dataset.classes
    if config.hold_out_classes is not None:
        held = held_out_classes(classes, config.hold_out_classes)
        kept = [n for n in range(len(classes)) if n not in held]
        classes, test = tuple(classes[n] for n in kept), of_classes(test, kept)
        chosen, labels = renumbered(labels, kept)
        index = index[chosen]
    if config.subset:
        chosen = stratified(labels, config.subset, seed)
        index, labels = index[chosen], labels[chosen]
    if config.imbalance > 1:
        chosen = long_tail(labels, len(classes), config.imbalance, seed)
        index, labels = index[chosen], labels[chosen]
    if config.label_noise:
        labels = noisy(labels, len(classes), config.label_noise, seed)
    in_place = torch.equal(index, torch.arange(len(source)))
    train = relabelled(source if in_place else source.subset(index), labels)
    # The order of the images, and their labels, do not change their mean and standard deviation.
    known = dataset.mean, dataset.std
    mean, std = known if len(train) == len(source) else channels_of(train) or known
    return replace(dataset, classes=classes, train=train, test=test, mean=mean, std=std)


def describe_shape(dataset: Dataset, config: TrainConfig) -> dict[str, Any]:
    """The data set as `config` shapes it, as plain JSON values.

    Returns:
        `options`, those given; `classes`, the names of those trained; `held_out_classes`; the number of `train_images`,
        `validation_images` and `test_images`; `images_per_class`, those of `train_images` by their (perhaps wrong)
        label, in class order; `wrong_labels`, how many labels of training and validation images together were changed;
        `data_digest`; `source_digest`.

    Raises:
        Refused: as `shape`.
    """
    shaped = shape(dataset, config)
    identity, classes = shaped.identity(), shaped.dataset.classes
    held = held_out_classes(dataset.classes, config.hold_out_classes) if config.hold_out_classes is not None else []
    return {
        "options": shaping_options(config),
        "classes": list(classes),
        "held_out_classes": [dataset.classes[n] for n in held],
        "train_images": len(shaped.train),
        "validation_images": len(shaped.validation) if shaped.validation else 0,
        "test_images": len(shaped.dataset.test),
        "images_per_class": torch.bincount(shaped.train.labels.cpu(), minlength=len(classes)).tolist(),
        "wrong_labels": round(config.label_noise * len(shaped.dataset.train)),
        "data_digest": identity.digest,
        "source_digest": identity.source,
    }


def unseen_classes(dataset: Dataset, config: TrainConfig) -> tuple[AnySplit, tuple[str, ...]]:
    """The test images of the classes that a run under `config` holds out, and the names of these classes.

    Args:
        dataset: as it was loaded.

    Returns:
        the split, whose labels count the held-out classes from 0 in class order, and their names.

    Raises:
        Refused: the run holds no classes out, or there are no test images of them.
    """
    if config.hold_out_classes is None:
        raise Refused("classes", "the run held no classes out", "train one with `hold_out_classes`")
    held = held_out_classes(dataset.classes, config.hold_out_classes)
    test = dataset.test.subset(canonical_order(dataset.test)) if config.canonical_order else dataset.test
    return of_classes(test, held), tuple(dataset.classes[n] for n in held)


def canonical_order(split: AnySplit) -> Tensor:
    """int64 [N]: the images of a split in memory in the order of their content.

    Raises:
        Refused: the images stay on the disk. Their names could be sorted, but these differ from one layout to another, and
            their content is known only to who decodes them all.
    """
    if not isinstance(split, Split):
        raise Refused("canonical_order", "this set is too large to be held in memory", "leave it out")
    return order_by_hash(split.labels, split.image_hashes)


def of_classes(split: AnySplit, kept: Sequence[int]) -> AnySplit:
    """The images of some classes (ascending), relabelled by their place among these."""
    chosen, labels = renumbered(split.labels, kept)
    if not len(chosen):
        raise Refused("hold_out_classes", "leaves no test images", "hold out other classes")
    return relabelled(split.subset(chosen), labels)


def relabelled(split: AnySplit, labels: Tensor) -> AnySplit:
    """The same images with these labels."""
    if isinstance(split, Split):
        return split.with_labels(labels)
    assert isinstance(split, StreamedSplit)
    return replace(split, labels=labels)


def channels_of(split: AnySplit) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation of a split's pixels; None of images on the disk that nobody has summed up."""
    if isinstance(split, Split):
        return channel_statistics(split.images.split(CHUNK))
    if isinstance(split, StreamedSplit) and split.sums is not None:
        return statistics(split.sums, split.image_size)
    return None
