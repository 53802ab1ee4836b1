"""A network to the bytes of a file, ONNX or torch.export's, and such bytes to what computes by them."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from cifarnet.analysis.export.deployed import INPUT, OUTPUTS, Deployed
from cifarnet.core.errors import Refused

OPSET = 18  # of ONNX: the one that torch's exporter works in, and old enough for the runtimes in use
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
EXTRA_FILE = "cifarnet.json"  # the metadata within a .pt2
SCOPES = "pkg.torch.onnx.name_scopes"  # where a node's module is kept until the file is written

# uint8 [N, H, W, 3] -> the three outputs.
Runner = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def check_packages(kind: str) -> None:
    """Raises Refused where what writes and runs ONNX is not installed."""
    if kind != "onnx":
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        why = f"the {error.name or 'onnx'} package is not installed"
        raise Refused("`format=onnx`", why, 'pip install "cifarnet[onnx]"') from error


def check_suffix(out: Path, kind: str) -> None:
    """Raises Refused where a file's name is one of the other format."""
    for other, suffix in SUFFIXES.items():
        if other != kind and out.suffix.lower() == suffix:
            fix = f"add `format={other}`, or name a {SUFFIXES[kind]} file"
            raise Refused(str(out), f"is the name of another format than {kind}", fix)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the exporters log to themselves: it speaks of their own insides, and their errors are raised too."""
    level, handlers, places = logging.root.manager.disable, logging.root.handlers[:], sys.path[:]
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        logging.root.handlers[:], sys.path[:] = handlers, places  # onnxruntime adds to both


def traced(network: Deployed, size: int) -> ExportedProgram:
    """The network as torch.export has it, for any number of images of `size` x `size` pixels."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with torch.no_grad(), quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: Dim("N")},), strict=False)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names of folders on this machine
    return program


def to_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """A .pt2 archive, with the metadata as the extra file `EXTRA_FILE`."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={EXTRA_FILE: json.dumps(dict(metadata))})
    return buffer.getvalue()


def to_onnx(program: ExportedProgram) -> Any:
    """The `onnx.ModelProto` of a program, checked by onnx; its nodes still say which module they are of (`SCOPES`)."""
    import onnx

    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS), opset_version=OPSET, verbose=False
        )
    assert made is not None
    proto = made.model_proto
    onnx.checker.check_model(proto, full_check=True)
    return proto


def finished(proto: Any, metadata: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file: what names modules and lines of source is left out, the metadata put in."""
    import onnx

    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.producer_name, proto.producer_version = "cifarnet", metadata["cifarnet"]
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def run_onnx(data: bytes) -> Runner:
    """A function that computes by an ONNX file, in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(list(OUTPUTS), {INPUT: images}))


def run_pt2(data: bytes) -> Runner:
    """A function that computes by a .pt2 file, in torch on the CPU."""
    with quiet():
        network = torch.export.load(io.BytesIO(data)).module()

    def run(images: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(output.numpy() for output in network(torch.from_numpy(images)))

    return run
