"""A CUDA graph on the CPU: what a tape records of torch's operators runs again on the same tensors, and nothing of the host's.

Of what a recording forbids it knows the numbers that the host reads; copies from the host and streams it does not see.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READ_BY_HOST = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero"}


class Tape(TorchDispatchMode):
    """Records every operator with the tensors themselves. As in a graph, the host may not read a number of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()  # storages that the work takes itself
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.name().split(".")[0] in READ_BY_HOST:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func.name()}")
        for storage in storages((args, kwargs)):
            if storage.data_ptr() not in self.made | self.before.keys():
                self.before[storage.data_ptr()] = storage, storage.clone()
        made = func(*args, **kwargs)
        self.made |= {storage.data_ptr() for storage in storages(made)} - self.before.keys()
        self.calls.append((func, args, kwargs, made))
        return made

    def undo(self) -> None:
        """A graph that is recorded has not run."""
        for storage, kept in self.before.values():
            storage.copy_(kept)

    @torch.no_grad()
    def replay(self) -> None:
        """Runs what is recorded, each operator into the memory that it filled then; views are there."""
        for func, args, kwargs, made in self.calls:
            returns = func._schema.returns
            if returns and all(one.alias_info is not None and not one.alias_info.is_write for one in returns):
                continue
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.detach().copy_(new)


def storages(values: Any) -> list[torch.UntypedStorage]:
    """Those of all tensors in there that hold something."""
    found = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return [storage for storage in found if storage.nbytes()]


def record(work: Callable[[], None], stream: None) -> Callable[[], None]:
    """As `step_graph.record`."""
    with Tape() as tape:
        work()
    tape.undo()
    return tape.replay
