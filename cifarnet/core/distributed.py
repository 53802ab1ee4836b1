"""Training in several processes: what torchrun says of this one, and the few things that the ranks do together.

The launcher is torchrun, the collectives are torch.distributed's. Everything here does nothing in a process on its own.
torch is imported inside, since the command line asks for the rank before it needs torch.
"""

import itertools
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cifarnet.core.errors import CifarnetError, Failed, Refused
from cifarnet.core.launcher import numbers, restarts

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# How long a rank waits for the others: longer than the slowest may need to read its data. A rank that dies closes its
# connections, which ends the others at once; this is for one that hangs.
TIMEOUT = timedelta(minutes=30)
connections = itertools.count()  # of this process, one after the other; on every rank as many


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: its `rank` of `world`, and its number `local` on its machine.

    Methods named "of all ranks" are collective: every rank must call them, in the same order.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Is this rank the one that prints, logs and writes files?"""
        return self.rank == 0

    def part(self, size: int) -> tuple[int, int]:
        """Begin and end of this rank's contiguous part of `size` things; parts differ by one at most (`tensor_split`)."""
        least, more = divmod(size, self.world)
        begin = self.rank * least + min(self.rank, more)
        return begin, begin + least + (self.rank < more)

    def sum(self, tensor: "Tensor") -> "Tensor":
        """The sum of `tensor` over all ranks, on each of them."""
        return self._reduced(tensor, "SUM")

    def largest(self, tensor: "Tensor") -> "Tensor":
        """The elementwise maximum of `tensor` over all ranks, on each of them."""
        return self._reduced(tensor, "MAX")

    def _reduced(self, tensor: "Tensor", operation: str) -> "Tensor":
        if self.world == 1:
            return tensor
        from torch import distributed

        result = tensor.detach().clone()
        distributed.all_reduce(result, getattr(distributed.ReduceOp, operation))
        return result

    def concatenated(self, tensor: "Tensor") -> "Tensor":
        """The tensors [n, ...] of all ranks in their order, [world n, ...]; n is the same on each."""
        if self.world == 1:
            return tensor
        import torch

        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def copy_from_first(self, tensors: Iterable["Tensor"]) -> None:
        """Overwrites these tensors of all ranks by those of the first."""
        if self.world == 1:
            return
        import torch

        with torch.no_grad():
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Returns once all ranks have come here."""
        if self.world > 1:
            import torch

            self.sum(torch.zeros(()))

    def gather(self, work: Callable[[], T], named: bool = True) -> list[T]:
        """The results of `work` on all ranks, in their order; small values that pickle. No collective inside it.

        Raises:
            Refused, Failed: `work` did on some rank; every rank then raises the error of the lowest such rank. It names
                the rank and its machine where `named` and not all of them failed in the same way.
        """
        if self.world == 1:
            return [work()]
        from torch import distributed

        value, problem = None, None
        try:
            value = work()
        except CifarnetError as error:
            problem = (Refused if isinstance(error, Refused) else Failed, error.what, error.why, error.fix)
        outcomes: list[Any] = [None] * self.world
        distributed.all_gather_object(outcomes, (value, problem, socket.gethostname()))
        problems = [problem for _, problem, _ in outcomes]
        for rank, (_, problem, machine) in enumerate(outcomes):
            if problem:
                kind, what, why, fix = problem
                alone = named and any(other != problem for other in problems)
                raise kind(f"rank {rank} ({machine}): {what}" if alone else what, why, fix)
        return [value for value, _, _ in outcomes]

    @contextmanager
    def together(self) -> Iterator[None]:
        """All ranks run the body, no collective inside it; goes on once all have. Raises on each as `gather`."""
        problem: CifarnetError | None = None
        try:
            yield
        except CifarnetError as error:
            problem = error
        self.gather(lambda: _raise(problem))

    @contextmanager
    def local_first(self) -> Iterator[None]:
        """As `together`, but on each machine rank 0 runs the body before the others do."""
        if self.world > 1 and self.local > 0:
            self.gather(lambda: None)
        with self.together():
            yield
        if self.world > 1 and self.local == 0:
            self.gather(lambda: None)

    def of_first(self, work: Callable[[], T]) -> T:
        """The result of `work` on the first rank, on all ranks; only there is it called. Raises as `gather`."""
        results = self.gather(lambda: work() if self.first else None, named=False)
        return results[0]  # type: ignore[return-value]


def _raise(problem: CifarnetError | None) -> None:
    if problem is not None:
        raise problem


ALONE = Ranks()


def launched() -> Ranks:
    """This process among those that torchrun started, from its environment; ALONE without torchrun.

    Raises:
        Refused: as `launcher.numbers`.
    """
    return Ranks(*numbers())


@contextmanager
def connect(device: str) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected by NCCL on GPUs and by gloo for what lies in main memory.

    Args:
        device: as --device; with "cpu" no GPU is touched.

    Raises:
        Failed: another rank ended or cannot be reached.
    """
    ranks = launched()
    if ranks.world == 1:
        yield Ranks()
        return
    import torch
    from torch import distributed

    # Imported once there is a group (DDP would), it keeps that group as a default of its functions; gloo's threads then
    # outlive destroy_process_group, and one that needs the interpreter while that ends aborts the process.
    from torch.distributed import nn  # noqa: F401

    gpus = device != "cpu" and torch.cuda.is_available()
    try:
        store, rank, world = next(distributed.rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps this store over a restart, and with it the addresses of the processes that died; and of a process
        # that connects again, as one that trains twice, those of the group before.
        store = distributed.PrefixStore(f"{restarts()}/{next(connections)}/{world}", store)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        yield ranks
        distributed.barrier()  # a rank that leaves while another still talks to it could bring that one down
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise Failed(
            "training", f"another rank ended or cannot be reached ({' '.join(str(error).split())[:160]})",
            "its own message says why; go on from the last checkpoint with `resume`",
        ) from error  # fmt: skip
    except CifarnetError:  # from our own lines, where no collective is under way that destroying would wait for
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    from torch.distributed import DistError

    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, DistError) or any(word in str(error) for word in words)
