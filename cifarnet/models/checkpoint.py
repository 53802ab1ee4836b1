"""Models and training states <-> safetensors files, with metadata enough to rebuild everything. No pickle, ever."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cifarnet.core.config import IDENTITY
from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused
from cifarnet.core.torch_settings import check_default_dtype
from cifarnet.losses.base import LOSS_KEY
from cifarnet.models.classifier import Classifier, build_model
from cifarnet.models.model_info import ModelInfo, parse_info
from cifarnet.storage.atomic import write_file
from cifarnet.storage.safetensors_header import CHECKPOINT
from cifarnet.storage.sharded_file import INDEX, Rows, TensorSet, metadata_of, write_set

FORMAT = CHECKPOINT


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the default layout (safetensors refuses channels_last ones)."""
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


def rows_of(model: Classifier) -> dict[str, Tensor | Rows]:
    """The tensors of a model, what is only this rank's part of one marked as such."""
    tensors: dict[str, Tensor | Rows] = dict(model.state_dict())
    for name in model.apart:
        tensors[name] = Rows(model.get_parameter(name), model.head.classes.start)
    return tensors


def save_model(path: Path, model: Classifier, info: ModelInfo, ranks: Ranks = ALONE, *also: Path) -> None:
    """Writes the model's weights, the head's state and `info` to `path`, then to each of `also`, atomically; of several ranks all call it.

    A head that is spread over ranks makes it a set of files with an index (see `storage.sharded_file`); else the first rank writes.

    Raises:
        Failed: the file cannot be written.
    """
    if model.apart:
        for target in (path, *also):
            write_set(target, rows_of(model), metadata_for(info), ranks)
    elif ranks.first:
        data = save(contiguous(model.state_dict()), metadata_for(info))
        for target in (path, *also):
            write_file(target, data)


def save_halved(path: Path, model: Classifier, info: ModelInfo) -> None:
    """As `save_model`, in half the bytes: filters and matrices in fp16. Norms and states, which fp16 may not hold, stay as they are.

    Raises:
        Failed: the file cannot be written.
    """
    tensors = contiguous(model.state_dict())
    halved = {name: tensor.half() if is_halved(tensor) else tensor for name, tensor in tensors.items()}
    write_file(path, save(halved, metadata_for(info)))


def is_halved(tensor: Tensor) -> bool:
    """May fp16 stand for this tensor in a file?"""
    return tensor.dtype == torch.float32 and tensor.dim() > 1


def metadata_for(info: ModelInfo) -> dict[str, str]:
    """The metadata of a model's file."""
    return {"format": FORMAT, "kind": "model", "info": info.to_json()}


class WithoutDrawing(TorchFunctionMode):
    """Random initialisation does nothing: on the meta device there is nothing to draw, and torch imports its compiler for it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Passes everything on but the in-place draws."""
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def load_model(path: Path, *, of_features: bool = False) -> tuple[Classifier, ModelInfo]:
    """The model of a checkpoint, on the CPU in evaluation mode, and what the file says of it.

    The model is first laid out without memory and compared with the file, so that no size written in a hostile file
    makes the program allocate more than the file holds. A set of files (its index) is put together.

    Args:
        of_features: whether the caller can use a model that takes features and no images.

    Raises:
        Refused: not a whole safetensors file of ours, another architecture than it says, weights that are not finite.
    """
    opened = TensorSet(path, FORMAT, "model") if path.name.endswith(INDEX) else None
    info = read_info(path)
    if info.config.arch == IDENTITY and not of_features:
        raise Refused(str(path), "its model takes features, not images", "train, eval and verify can use it")
    model = laid_out(path, info)
    tensors = {name: opened.read(name) for name in opened.tensors} if opened else read_tensors(path)
    compare(path, tensors, model.state_dict(), halved=True)
    model.load_state_dict({name: as_built(tensor) for name, tensor in tensors.items()}, assign=True)
    return model.eval(), info


def as_built(tensor: Tensor) -> Tensor:
    """A file's tensor as a network has it: fp16 widened, and an empty one with memory of its own.

    An empty one of a file points behind the file's end, which `torch.export.save` takes for an address.
    """
    if tensor.dtype == torch.float16:
        return tensor.float()
    return tensor if tensor.numel() else torch.empty_like(tensor)


def laid_out(path: Path, info: ModelInfo) -> Classifier:
    """The model that a checkpoint describes, on the meta device: without memory. Raises Refused where there is no such model."""
    check_default_dtype()
    try:
        with torch.device("meta"), WithoutDrawing():
            return build_model(info.config, len(info.classes))
    except Refused as error:
        raise Refused(
            str(path), f"describes a model that cannot be built ({error})", "take another checkpoint"
        ) from error


def read_info(path: Path) -> ModelInfo:
    """The text of a checkpoint about its model. Raises Refused as `load_model`, of the text alone."""
    return parse_info(metadata_of(path, FORMAT, "model").get("info", ""), path)


def restore_weights(path: Path, model: Classifier) -> None:
    """Puts the weights of a set at `path` into a model with a spread head, of which only this rank's rows are read.

    Raises:
        Refused: it is not a whole set of this model.
    """
    tensors = read_here(TensorSet(path, FORMAT, "model"), model, set(model.apart))
    compare(path, tensors, model.state_dict())
    model.load_state_dict(tensors)


def read_here(opened: TensorSet, model: Classifier, apart: set[str]) -> dict[str, Tensor]:
    """All tensors of a set, those named `apart` only in the rows that this rank's head holds.

    Raises:
        Refused: the set has another number of classes.
    """
    head = model.head
    if not head.apart:
        return {name: opened.read(name) for name in opened.tensors}
    for name in apart & opened.tensors.keys():
        found = opened.tensors[name].shape
        if found[:1] != (head.num_classes,):
            raise Refused(
                str(opened.path), f"{name} is {found}, not of {head.num_classes:,} classes", "take another checkpoint"
            )
    return {name: opened.read(name, head.classes if name in apart else None) for name in opened.tensors}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, whose header safetensors itself validates (bounds, overlaps, trailing bytes)."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise Refused(str(path), f"is broken ({error})", "take another checkpoint") from error


def compare(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, halved: bool = False) -> None:
    """Refuses tensors that are not those expected: names, shapes, types, finite values. halved: fp16 where `save_halved` writes it will do."""
    missing = [name for name in expected if name not in found and name != f"head.{LOSS_KEY}"]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"has unknown {', '.join(unknown[:3])}"] if unknown else []
        raise Refused(str(path), f"does not fit its architecture: {' and '.join(parts)}", "take another checkpoint")
    for name, tensor in found.items():
        wanted = expected[name]
        fits = tensor.dtype == wanted.dtype or (halved and tensor.dtype == torch.float16 and is_halved(wanted))
        if tensor.shape != wanted.shape or not fits:
            shapes = f"{name} is {tuple(tensor.shape)} {tensor.dtype}, not {tuple(wanted.shape)} {wanted.dtype}"
            raise Refused(str(path), f"does not fit its architecture: {shapes}", "take another checkpoint")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Refused(str(path), f"{name} holds values that are not finite", "take another checkpoint")
