"""A step recorded once and replayed as one CUDA graph: the host launches one thing a step instead of some hundreds.

What is recorded runs again on the same addresses: a step's images and labels are copied to where those of the recording lay,
the learning rate is a number on the device, and weights, optimizer, sums and the head's memory are moved in place. Nothing
that the host decides may change from one replay to the next.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from cifarnet.core.errors import Failed

# Real steps before the recording, on the stream that is recorded. They make what is made once: the optimizer's state, cuDNN's
# choice of algorithms, the libraries' workspaces.
WARM_STEPS = 3

# The device's part of a step: images [n, 3, H, W] as they are trained on, labels [n].
Update = Callable[[Tensor, Tensor], None]


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream beside that of the loop."""
    return torch.cuda.Stream(device)


def run_aside(work: Callable[[], None], stream: torch.cuda.Stream) -> None:
    """Runs `work` on the stream, after what was asked of the device and before what will be."""
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        work()
    here.wait_stream(stream)


def record(work: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """`work` as a CUDA graph, which owns the memory that `work` takes; it is not run yet."""
    here = torch.cuda.current_stream(stream.device)
    graph = torch.cuda.CUDAGraph()
    gc.collect()  # else an earlier run's graph may be freed while this one is recorded, which breaks the recording
    try:
        with torch.cuda.device(stream.device), torch.cuda.graph(graph, stream=stream):
            work()
    finally:
        torch.cuda.set_stream(here)  # a recording that breaks leaves its own
    return graph.replay


class StepGraph:
    """Takes the steps of whole batches: the first WARM_STEPS of a shape as they are, then by a graph recorded for that shape."""

    def __init__(self) -> None:
        self.stream: torch.cuda.Stream | None = None
        self.forget()

    def forget(self) -> None:
        """Drops the recorded step, which no longer holds: a loaded state lies elsewhere."""
        self.images = self.labels = torch.empty(0)
        self.warm = 0  # steps of the present shape before the recording
        self.replay: Callable[[], None] | None = None

    @property
    def warming(self) -> bool:
        """Is the step that is being taken one before the recording, in which the host may look at numbers?"""
        return self.replay is None and self.warm < WARM_STEPS

    def step(self, update: Update, images: Tensor, labels: Tensor) -> None:
        """`update` on these images and labels; it is the same in each call.

        Raises:
            Failed: the step cannot be recorded.
        """
        if images.shape != self.images.shape:  # with --progressive images grow
            self.forget()
            self.images, self.labels = torch.empty_like(images), torch.empty_like(labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        if self.stream is None:
            self.stream = new_stream(images.device)
        if self.warming:
            run_aside(lambda: update(self.images, self.labels), self.stream)
            self.warm += 1
            return
        if self.replay is None:
            self.replay = self._recorded(update, self.stream)
        self.replay()

    def _recorded(self, update: Update, stream: torch.cuda.Stream) -> Callable[[], None]:
        try:
            return record(lambda: update(self.images, self.labels), stream)
        except RuntimeError as error:
            first: BaseException = error
            while isinstance(first.__context__, RuntimeError):  # the end of a broken recording raises once more
                first = first.__context__
            why = f"the step cannot be recorded ({str(first).strip().splitlines()[0]})"
            raise Failed("cuda_graph", why, "resume without it (`cuda_graph=False`)") from error
