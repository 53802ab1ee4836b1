"""fp32 to int8: onnxruntime's static quantisation, whose ranges come from training images."""

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor

from cifarnet.analysis.export.deployed import INPUT
from cifarnet.analysis.export.formats import SCOPES, quiet
from cifarnet.core.plain_file import read_bytes

BATCH = 64
LAYERS = ("model.backbone", "model.neck")  # what is quantised; pixels come in as they are, and the head stays fp32
LARGEST = 2 << 30  # bytes of an ONNX file


def quantised(proto: Any, images: Tensor) -> Any:
    """The `onnx.ModelProto` with backbone and neck in int8 (QDQ, a scale for each output channel).

    Weights take 7 bits: on a processor without VNNI onnxruntime adds the products of two int8 pairs in 16 bits, which saturate where the
    weights take 8, so that the file would give other results there.

    Args:
        proto: as `formats.to_onnx` makes it.
        images: uint8 [N, H, W, 3], whose activations set the ranges.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images.split(BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    chosen = [node.name for node in proto.graph.node if is_of_layers(node)]
    copy = deepcopy(proto)  # it is emptied
    with tempfile.TemporaryDirectory() as folder, quiet():
        place = Path(folder, "int8.onnx")
        quantize_static(
            copy,
            str(place),
            Reader(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        return onnx.load_from_string(read_bytes(place, LARGEST))


def is_of_layers(node: Any) -> bool:
    """Is a node of the graph a part of backbone or neck?"""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
    return any(f"'{layer}" in scopes for layer in LAYERS)
