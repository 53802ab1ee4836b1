"""The demands of every head on its input, on every backend and device."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cifarnet.core.errors import Refused

# The `ignore_index` of every cross-entropy: torch's own, -100, would leave such a sample out without a word. Eagerly this one is refused
# as any label out of range; under torch.compile it leaves its sample out.
NO_LABEL = -(2**63)
ONE_HOT = "of one-hot rows it is labels.float().argmax(dim=1)"


def check_classes(num_classes: int) -> int:
    """The number of classes of a margin head. Raises Refused for fewer than two, and for what is no whole number."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, Integral):
        raise Refused("num_classes", f"{num_classes!r} is no whole number", "give 2 or more")
    if num_classes < 2:
        raise Refused("num_classes", f"a margin needs at least 2 classes, not {num_classes}")
    return num_classes


def check_tensor(name: str, value: Any) -> None:
    """Raises TypeError for an array or a list."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(value).__name__}; torch.as_tensor makes one of an array")


def check_features(features: Tensor, size: int, least: int = 0) -> None:
    """Raises ValueError where features are not [N, size], N >= least, and TypeError where they are no tensor of floating-point numbers."""
    check_tensor("features", features)
    shape = features.shape
    if len(shape) != 2 or shape[1] != size or shape[0] < least:
        fix = "; flatten(1) makes one row of each sample's" if len(shape) > 2 and shape[1:].numel() == size else ""
        raise ValueError(f"features must be [N, {size}] with N >= {least}, not {list(shape)}{fix}")
    if not features.is_floating_point():
        raise TypeError(f"features must be floating-point numbers, not {features.dtype}")


def whole_labels(labels: Tensor) -> Tensor:
    """The labels as int64, of any integer type. Raises TypeError for other things, which would lose what is behind their point."""
    check_tensor("labels", labels)
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        fix = ONE_HOT if _is_table(labels) else "of whole numbers it is labels.long()"
        raise TypeError(f"labels must be integers, not {labels.dtype}; {fix}")
    return labels.long()


def _is_table(labels: Tensor) -> bool:
    return labels.dim() == 2 and labels.shape[1] > 1


def check_batch(features: Tensor, labels: Tensor, size: int, least: int = 1) -> Tensor:
    """The labels [N] as int64, of features [N, size], N >= least; labels of any integer type.

    Raises:
        ValueError: other shapes, one of the two on the meta device. TypeError: labels that are not integers, features that are not floating-point numbers.
    """
    check_features(features, size, least)
    whole = whole_labels(labels)
    if labels.shape != features.shape[:1]:
        samples = len(features)
        fix = (
            "it is labels.flatten()" if labels.numel() == samples else ONE_HOT if _is_table(labels) else "give one each"
        )
        raise ValueError(f"labels must be [{samples}], not {list(labels.shape)}; {fix}")
    refuse_meta("labels", labels, features)
    return whole


def refuse_meta(name: str, tensor: Tensor, features: Tensor) -> None:
    """Raises ValueError where either alone is on the meta device: torch would compute with numbers that are not there."""
    if tensor.is_meta != features.is_meta:
        where = f"{name} on {tensor.device} and features on {features.device}"
        raise ValueError(
            f"{where}: there are no numbers on meta; put both on one device, a module by to_empty() and its weights"
        )


def check_range(labels: Tensor, num_classes: int) -> None:
    """Raises IndexError for a label outside [0, C), with its sample. On the CPU only: reading a GPU would wait for it.

    There, and under torch.compile and torch.func, the operators that index by the labels stop the program.
    """
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        sample = int(outside.nonzero()[0])
        label = int(labels[sample])
        raise IndexError(f"label {label} of sample {sample} is out of range: there are {num_classes} classes")


def checked_labels(features: Tensor, labels: Tensor, size: int, num_classes: int, least: int = 0) -> Tensor:
    """The labels [N] as int64, of features [N, size], N >= least, where each is in [0, C).

    Raises:
        As `check_batch` and `check_range`; a GPU reports a label out of range at its next synchronisation.
    """
    labels = check_batch(features, labels, size, least)
    check_range(labels, num_classes)
    if labels.is_cuda:
        torch._assert_async(((labels >= 0) & (labels < num_classes)).all(), "a label is out of range")
    return labels


def full_precision(device: torch.device) -> AbstractContextManager:
    """The context in which autocast leaves the head alone; the meta device has no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def working_type(features: Tensor) -> torch.dtype:
    """The type that a head computes in: float64 of float64 features, else float32."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The backward of an autograd function that raises NotImplementedError under `create_graph=True`, for a second derivative.

    `once_differentiable` alone lets it pass where the upstream gradient is a constant: part of it would be missing without a word.
    """
    once = once_differentiable(backward)

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Tensor | None) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # that is `create_graph=True`
            why = "a head of which each rank holds a part has no second derivative (`create_graph=True`)"
            raise NotImplementedError(f"{why}; use MarginHead with backend='torch' for it")
        return once(ctx, *grads)

    return run


def refuse_transforms() -> None:
    """Raises NotImplementedError within a transform of torch.func."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        why = "the margin kernels do not go through torch.func's transforms"
        raise NotImplementedError(f"{why}; use backend='torch' for it")
