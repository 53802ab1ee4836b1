"""Which images and labels a training split is made of: choices over labels alone, each a function of the seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.class_names import in_quotes, in_todays_form
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.core.known import nearest
from cifarnet.data.augment.batch import generator_for
from cifarnet.data.shape_options import asked_classes

NAMED = 20  # classes named in a refusal


def held_out_classes(classes: Sequence[str], asked: str) -> list[int]:
    """The classes, ascending, that `hold_out_classes` asks for: the last so many, or those of these names in any case.

    Raises:
        Refused: a name that is none of the classes, none at all, or fewer than two left to train.
    """
    wanted = asked_classes(asked)
    if isinstance(wanted, int):
        held = list(range(max(len(classes) - wanted, 0), len(classes)))
    else:
        held = sorted({find_class(classes, name) for name in wanted})
    if not held or len(classes) - len(held) < 2:
        left = len(classes) - len(held)
        why = f"leaves {plural(left, 'class')} to train" if held else "names no class"
        raise Refused("hold_out_classes", why, f"hold out 1 to {len(classes) - 2} of {len(classes)}")
    return held


def find_class(classes: Sequence[str], name: str) -> int:
    """The class of this name, in whatever form of Unicode or as an earlier version wrote it; else of one that differs in case alone."""
    name = in_todays_form(name)
    if name in classes:
        return classes.index(name)
    folded = [one.casefold() for one in classes]
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    meant = nearest(name, classes)
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    why = ", in double quotes for its comma" if meant and "," in meant else ""
    hint = f"did you mean {in_quotes(meant)}{why}? " if meant else ""
    known = f"{hint}the classes are {', '.join(map(in_quotes, classes[:NAMED]))}{more}"
    raise Refused("hold_out_classes", f"'{printable(name)}' is no class", known)


def renumbered(labels: Tensor, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where `labels` [N] is one of the classes `kept`, int64 [n], and the labels there, counted within `kept`."""
    chosen = torch.isin(labels, torch.tensor(kept)).nonzero().flatten()
    return chosen, torch.searchsorted(torch.tensor(kept), labels[chosen])


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """int64 [count], ascending: images drawn from each class in proportion to its size (largest remainders), at least one.

    Raises:
        Refused: there are fewer images, or more classes.
    """
    sizes = labels.bincount().numpy()
    present = int((sizes > 0).sum())
    if not present <= count <= len(labels):
        why = f"{count:,} is out of range for {plural(len(labels), 'training image')} of {plural(present, 'class')}"
        raise Refused("subset", why, f"give {present:,} to {len(labels):,}")
    shares = sizes * count / len(labels)
    counts = np.maximum(np.floor(shares), sizes > 0).astype(np.int64)
    if (missing := count - counts.sum()) > 0:
        counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    # Small classes had to have one: it comes from those that are furthest above their share.
    while counts.sum() > count:
        counts[np.where(counts > 1, counts - shares, -np.inf).argmax()] -= 1
    return drawn(labels, torch.from_numpy(counts), generator_for("subset", seed, 0))


def long_tail(labels: Tensor, classes: int, ratio: float, seed: int) -> Tensor:
    """int64 [n], ascending: of class j n_max * ratio^(-j / (C - 1)) images, rounded, at least one; n_max is the largest class's.

    A class that has fewer gives all it has: it cannot give more, and a set whose classes differ by a few images would
    otherwise have no long tail. (Y. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.)
    """
    sizes = labels.bincount(minlength=classes)
    largest = int(sizes.max())
    wanted = [max(round(largest * ratio ** (-j / (classes - 1))), 1) for j in range(classes)]
    return drawn(labels, torch.tensor(wanted).minimum(sizes), generator_for("imbalance", seed, 0))


def drawn(labels: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """int64 [n], ascending: so many images of each class, drawn without replacement."""
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # class by class, shuffled within each
    sorted_labels, sizes = labels[order], labels.bincount(minlength=len(counts))
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[sorted_labels]  # within its class
    return order[rank < counts[sorted_labels]].sort().values


def noisy(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """Labels [N] of which round(share * N), drawn at random, became one of the other classes, each as likely as another."""
    generator = generator_for("label noise", seed, 0)
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    steps = torch.randint(1, classes, (len(wrong),), generator=generator)
    changed = labels.clone()
    changed[wrong] = (labels[wrong] + steps) % classes
    return changed
