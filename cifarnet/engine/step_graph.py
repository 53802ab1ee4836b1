"""A step recorded once and replayed as one CUDA graph: the host launches one thing a step instead of some hundreds.

What is recorded runs again on the same addresses: a step's images and labels are copied to where those of the recording lay,
the learning rate is a number on the device, and weights, optimizer, sums and the head's memory are moved in place. Nothing
that the host decides may change from one replay to the next.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cifarnet.core.errors import Failed

# Real steps before the recording, on a stream of their own, as torch's notes on CUDA graphs ask for. They make what is made
# once: the optimizer's state, cuDNN's choice of algorithms, the libraries' workspaces.
WARM_STEPS = 3

Update = Callable[
    [Tensor, Tensor], None
]  # the device's part of a step: images [n, 3, H, W] as they are trained on, labels [n]


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`work` as a CUDA graph, which owns the memory that `work` takes; it is not run yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        work()
    return graph.replay


def run_aside(work: Callable[[], None], device: torch.device) -> None:
    """Runs `work` on a stream of its own, after what was asked of the device and before what will be."""
    here, other = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    other.wait_stream(here)
    with torch.cuda.stream(other):
        work()
    here.wait_stream(other)


class StepGraph:
    """Takes the steps of whole batches: the first WARM_STEPS of a shape as they are, then by a graph recorded for that shape."""

    def __init__(self, update: Update) -> None:
        self.update = update
        self.forget()

    def forget(self) -> None:
        """What was recorded no longer holds: a loaded state lies elsewhere."""
        self.images = self.labels = torch.empty(0)
        self.warm = 0  # steps of the present shape before the recording
        self.replay: Callable[[], None] | None = None

    def step(self, images: Tensor, labels: Tensor) -> None:
        """A step on these images and labels.

        Raises:
            Failed: the step cannot be recorded.
        """
        if images.shape != self.images.shape:  # with --progressive images grow
            self.forget()
            self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        if self.warm < WARM_STEPS:
            self.warm += 1
            run_aside(self._update, images.device)
            return
        if self.replay is None:
            try:
                self.replay = record(self._update, images.device)
            except RuntimeError as error:
                why = f"the step cannot be recorded ({str(error).strip().splitlines()[0]})"
                raise Failed("cuda_graph", why, "go on without it") from error
        self.replay()

    def _update(self) -> None:
        self.update(self.images, self.labels)
