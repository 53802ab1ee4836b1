"""The one call that exports: a model -> a file, which is there only once it has been checked."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cifarnet.analysis.export.deployed import INPUT, Deployed, describe
from cifarnet.analysis.export.formats import OPSET, SUFFIXES, finished, run_onnx, run_pt2, to_onnx, to_pt2, traced
from cifarnet.analysis.export.images import CheckPictures, Load, pictures_of
from cifarnet.analysis.export.parity import Parity, compare, outputs_of, scale_of
from cifarnet.analysis.export.quantise import quantised
from cifarnet.core.errors import Failed, Refused
from cifarnet.core.torch_settings import own_modes
from cifarnet.data import load
from cifarnet.models.classifier import Classifier
from cifarnet.models.model_info import ModelInfo
from cifarnet.storage.output import write_checked
from cifarnet.storage.run_names import home_of


@dataclass(frozen=True)
class Exported:
    """A file that was written: where, its bytes, what it says of itself, what it was checked on, what the check found."""

    path: Path
    kind: str
    precision: str
    size: int
    metadata: dict[str, str]
    checked_on: str
    parity: Parity

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        opset = OPSET if self.kind == "onnx" else None
        about: dict[str, Any] = {
            "file": str(self.path),
            "format": self.kind,
            "opset": opset,
            "precision": self.precision,
            "bytes": self.size,
        }
        size = int(self.metadata["image_size"])
        about |= {"input": {"name": INPUT, "type": "uint8", "shape": ["N", size, size, 3]}}
        return about | {"metadata": self.metadata, "checked_on": self.checked_on, "parity": asdict(self.parity)}


def precision_of(kind: str, fp16: bool, int8: bool) -> str:
    """fp32, fp16 or int8. Raises Refused where these cannot be together."""
    if fp16 and int8:
        raise Refused("`fp16` and `int8`", "a file has one precision", "choose one")
    if int8 and kind == "torch":
        raise Refused("`int8`", "only ONNX files are quantised", "use `format=onnx`, or `fp16`")
    return "int8" if int8 else "fp16" if fp16 else "fp32"


@own_modes()
def export_model(
    checkpoint: Path,
    model: Classifier,
    info: ModelInfo,
    out: Path,
    kind: str,
    precision: str = "fp32",
    *,
    data_dir: str | Path | None = None,
    read: Load = load,
) -> Exported:
    """Writes the model to `out`, a place that `check_output` has seen, and says what the check found.

    Args:
        checkpoint, model, info: as `load_model` returns them.
        kind: onnx or torch; see `formats.check_packages`.
        precision: see `precision_of`.
        data_dir: where the run's data is, for the check.

    Raises:
        Refused: int8 without training images. Failed: the file does not compute what the model does, and was not written.
    """
    found, training = pictures_of(checkpoint, model, info, data_dir, fit=precision == "int8", read=read)
    own = outputs_of(model, info, found.images)
    metadata = describe(model, info, precision)
    network = Deployed(deepcopy(model) if precision == "fp16" else model, info, half=precision == "fp16").eval()
    program = traced(network, info.config.image_size)
    if kind == "torch":
        data, runner = to_pt2(program, metadata), run_pt2
    else:
        proto = to_onnx(program)
        data, runner = finished(proto if training is None else quantised(proto, training), metadata), run_onnx

    def check(written: bytes) -> Parity:
        arguments = found.images, found.labels, info.classes, scale_of(model, own.logits), precision
        parity = compare(own, runner(written), *arguments)
        refuse_unlike(out, parity, found, precision)
        return parity

    parity = write_checked(out, data, check)
    return Exported(out, kind, precision, len(data), metadata, found.words, parity)


def refuse_unlike(out: Path, parity: Parity, found: CheckPictures, precision: str) -> None:
    """Raises Failed where the check found a problem."""
    if parity.problems:
        why = f"on {found.words} {'; '.join(parity.problems)}"
        fix = "this is an error of cifarnet or of a library" if precision == "fp32" else f"leave `{precision}` out"
        raise Failed(str(out), f"is not written: {why}", fix)


def default_name(checkpoint: Path, kind: str, precision: str) -> Path:
    """Where an export goes that the user gave no name: into the run's folder, else into the current one."""
    name = f"model{'' if precision == 'fp32' else f'-{precision}'}{SUFFIXES[kind]}"
    return (home_of(checkpoint) or Path()) / name
