"""The contract of every head: it owns the class weights and turns features into a loss, or into logits for inference."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.torch_settings import own_draws
from cifarnet.losses.contract import check_range, checked_labels, whole_labels
from cifarnet.losses.objectives import OBJECTIVES
from cifarnet.losses.options import MarginOptions
from cifarnet.losses.registry import LOSSES

LOSS_KEY = "loss"  # of a state dict; checkpoints of version 0.1 lack it


class Head(nn.Module):
    """A head of C classes; `head(features, labels)` is the mean loss.

    Attributes:
        weight: the class weights [C, D], or those of the classes that lie on this rank.
        state: the running state of the loss, fp32, empty for most.
        options: the margin loss with its constants; None for a head without a margin.
        apart: names of the parameters of which each rank holds rows of its own, those of `classes`.
        whole_batch: the loss is the mean over the samples of all ranks, and not over this rank's.
        undecayed: names of the parameters that no weight decay may pull at.
    """

    weight: nn.Parameter
    state: Tensor
    options: MarginOptions | None = None
    apart: tuple[str, ...] = ()
    whole_batch = False
    undecayed: tuple[str, ...] = ()

    @property
    def in_features(self) -> int:
        """D, the size of the features."""
        return self.weight.shape[-1]

    @property
    def num_classes(self) -> int:
        """C, over all ranks."""
        return len(self.weight)

    @property
    def classes(self) -> range:
        """The classes whose weights are here."""
        return range(len(self.weight))

    @property
    def parameters_elsewhere(self) -> int:
        """Numbers that this head learns on other ranks."""
        return (self.num_classes - len(self.classes)) * self.weight.shape[1]

    def join(self, ranks: Ranks) -> None:
        """Several ranks train together from now on."""

    def seek(self, step: int) -> None:
        """Training goes on at this step."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Training begins `epoch` (from 0) of `epochs`."""

    @torch.no_grad()
    def count(self, labels: Tensor) -> None:
        """Counts the classes of all training labels [M], for a loss that treats classes by their size."""
        counts = getattr(self, "counts", None)
        if isinstance(counts, Tensor):
            labels = whole_labels(labels)
            check_range(labels, len(counts))
            counts.copy_(torch.bincount(labels.to(counts.device), minlength=len(counts)))

    def reset_parameters(self) -> None:
        """Draws the parameters anew and puts the running state back to its start."""
        raise NotImplementedError

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, a scalar, of features [N, D] with labels [N] (integers in [0, C))."""
        return self.loss_and_correct(features, labels)[0]

    def loss_and_correct(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and [N] whether each sample is taken for its own class."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] without margin or label, fp32 (of float64 features float64); their softmax is the probability."""
        raise NotImplementedError

    def measure(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy [N] over the logits of inference, and [N] whether each sample is taken for its own class."""
        labels = checked_labels(features, labels, self.in_features, self.num_classes)
        logits = self.logits(features)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return losses, logits.argmax(dim=1) == labels

    def prototypes(self) -> Tensor:
        """The class weights on the unit sphere [C, D], those of `classes`."""
        raise NotImplementedError

    def decision(self) -> tuple[Tensor, Tensor]:
        """W [C, D] and b [C], fp32: a feature z is taken for the class with the largest W z + b."""
        unit = self.prototypes()
        return unit, torch.zeros(len(unit), device=unit.device)

    def taken_from(self, tensors: Mapping[str, Tensor], loss: str) -> dict[str, Tensor]:
        """Of the state dict of another head, one of `loss`, the tensors that make sense in this one."""
        return dict(tensors)

    def initialise_as_keras(self) -> None:
        """Glorot-uniform weights; biases, where there are any, 0."""
        nn.init.xavier_uniform_(self.weight)


class StatefulHead(Head):
    """A margin head with the buffer `state`, which its loss remembers between steps; always fp32.

    Where the loss has a state, tables or a learned bias, the state dict holds the loss's name too, as ASCII codes, uint8. Loading the state of
    another loss is an error; a state dict without a name is taken as it is.
    """

    options: MarginOptions
    tables: tuple[str, ...] = ()  # names of what is kept beside the state

    def __init__(self, options: MarginOptions, num_classes: int, in_features: int) -> None:
        super().__init__()
        self.options = options = replace(options, classes=num_classes)
        self.objective = OBJECTIVES[options.loss]
        self.shape = shape = (num_classes, in_features)
        self.ranks = ALONE
        self.register_buffer("state", self.initial_state())
        with own_draws():  # what is drawn comes after the weights, in reset_parameters()
            tables = self.objective.tables(*shape, options)
        for name, value in tables.items():
            self.register_buffer(name, value)
            self.tables += () if name == "state" else (name,)
        for name, value in self.objective.learned(num_classes, options).items():
            self.register_parameter(name, nn.Parameter(value))
            self.undecayed += (name,)

    def initial_state(self) -> Tensor:
        """The state before the first step, fp32."""
        return torch.tensor(LOSSES[self.options.loss].initial_state, dtype=torch.float32)

    def count(self, labels: Tensor) -> None:
        """See `Head.count`."""
        super().count(labels)
        self._keep(self.objective.counted(self.memory, self.options))

    @property
    def memory(self) -> dict[str, Tensor]:
        """All that the head keeps besides W, by name."""
        return {name: getattr(self, name) for name in ("state", *self.tables, *self.undecayed)}

    @property
    def changes(self) -> bool:
        """Is a second forward pass in training another one, because what the loss remembers has moved on?"""
        return self.training and (self.objective.moves or self.objective.collects)

    def check_order(self) -> None:
        """Refuses what would run a forward pass in training twice, or without its running state.

        Raises:
            RuntimeError: within a backward pass, as activation checkpointing calls it, where the head `changes`.
            NotImplementedError: the same within a transform of torch.func, which lets nothing be written.
        """
        if torch.compiler.is_compiling() or not self.changes:
            return
        if torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"{self.options.loss}'s head cannot be recomputed in the backward pass: its running state has moved; "
                "leave the head out of torch.utils.checkpoint"
            )
        if torch._C._are_functorch_transforms_active():
            why = f"{self.options.loss}'s running state cannot move within torch.func's transforms"
            raise NotImplementedError(f"{why}; call head.eval() first, or take the gradient with autograd")

    @torch.no_grad()
    def _keep(self, moved: Mapping[str, Tensor]) -> None:
        for name, value in moved.items():
            getattr(self, name).copy_(value)

    def _reset_memory(self) -> None:
        self._keep({"state": self.initial_state()} | self.objective.tables(*self.shape, self.options))
        self._keep(self.objective.learned(self.shape[0], self.options))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Training begins `epoch` (from 0) of `epochs`; every rank calls it, before the epoch's first step."""
        self._keep(self.objective.begin_epoch(epoch, epochs, self.memory, self.options))

    def taken_from(self, tensors: Mapping[str, Tensor], loss: str) -> dict[str, Tensor]:
        """As `Head.taken_from`: a state of the same size means another thing to another loss."""
        foreign = ("state", LOSS_KEY, *self.tables, *self.undecayed) if loss != self.options.loss else ()
        return {name: value for name, value in tensors.items() if name not in foreign}

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def, override]
        # A running mean with rate 0.01 stands still in bf16, and a class count is another one there: what is kept moves with the
        # module and is not cast, not even for a moment.
        kept = {name: getattr(self, name) for name in ("state", *self.tables)}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = getattr(self, name)
            setattr(self, name, after.to(before.dtype) if before.is_meta else before.to(after.device))
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):  # type: ignore[no-untyped-def, override]
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if len(self.state) or self.tables or self.undecayed:
            destination[prefix + LOSS_KEY] = torch.tensor(list(self.options.loss.encode()), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors):  # type: ignore[no-untyped-def, override]
        codes = state_dict.pop(prefix + LOSS_KEY, None)
        name = self.options.loss if codes is None else _name_of(codes)
        if name != self.options.loss:
            errors.append(f"{prefix}state is that of {name}, and this head's loss is {self.options.loss}")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)


def _name_of(codes: Tensor) -> str:
    """The loss's name of its ASCII codes; a state dict that was cast, or the mean of several, has them as floating-point numbers."""
    whole = codes.double().round().nan_to_num().clamp(0, 255)
    return bytes(int(code) for code in whole.tolist()).decode("ascii", "replace")
