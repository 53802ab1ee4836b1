"""A backbone's graph and the names of its layers, traced beside whatever else the process computes."""

import threading
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.fx import Graph, Node
from torchvision.models.feature_extraction import NodePathTracer

_one_at_a_time = threading.Lock()


class OwnThreadTracer(NodePathTracer):
    """The tracer by which torchvision's create_feature_extractor names layers, for one thread.

    While torch.fx traces, `nn.Module.__call__` and `__getattr__` are patched for the whole process: the modules that other threads
    call are left as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """The node of a module's call; of another thread, the call."""
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """The proxy of a parameter; of another thread, the parameter."""
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(backbone: nn.Module) -> tuple[Graph, Mapping[Node, str]]:
    """The graph, and torchvision's path of each node (stages.0.1.relu_1), in the order they run."""
    with _one_at_a_time:
        tracer = OwnThreadTracer()
        return tracer.trace(backbone), tracer.node_to_qualname
