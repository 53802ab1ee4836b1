"""Which backend runs the margin head: pure torch, or the compiled extension on the CPU or on CUDA.

The extension is optional. Before it is loaded, its file is looked at: one that is cut short, or built for another torch,
would crash or compute nonsense. `auto` then falls back to pure torch with one warning, as it does where nothing is built
(pip hides what a build says); a backend asked for by name refuses.
"""

import functools
import importlib
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from cifarnet.core.errors import Refused
from cifarnet.core.launcher import local_number
from cifarnet.losses import extension_file, one_vs_all
from cifarnet.losses.contract import refuse_transforms
from cifarnet.losses.extension_file import extension_path as _extension_path
from cifarnet.losses.extension_file import runs_on
from cifarnet.losses.fakes import register_fakes
from cifarnet.losses.objectives.base import Kernel
from cifarnet.losses.registry import LOSSES

INTERFACE = 3  # of the operators; csrc/bindings.cpp has the same number
BACKENDS = ("auto", "torch", "cpu", "cuda")
REBUILD = "rebuild it with: pip install --no-build-isolation -e ."
BUILD = "pip install --no-build-isolation ."
NOT_BUILT = (
    f"the compiled margin head is not built, pure torch runs it; for the kernels, in cifarnet's source folder: {BUILD}"
)

_torch_calls = 0
_extension: Any = None
_why_not: str | None = None  # why the extension is not used, once that was found out
_loss_numbers: dict[str, int] = {}  # as the extension says
_resolved: dict[tuple[str, str, str, torch.dtype, str | None], str] = {}


def resolve(backend: str, device: str, dtype: torch.dtype = torch.float32, loss: str | None = None) -> str:
    """The backend ("torch", "cpu" or "cuda") that runs `loss` for features on `device` ("cpu", "cuda", "mps").

    Without `loss`, any loss that the extension has. The environment variable CIFARNET_BACKEND, where it is set and not
    empty, stands in for "auto". float64 features or weights run in pure torch: the kernels compute in float32.

    Raises:
        Refused: a backend was asked for by name and cannot run here.
    """
    key = (*asked(backend), device, dtype, loss)
    if key not in _resolved:
        _resolved[key] = _resolve(*key)
    return _resolved[key]


# What torch.compiler.assume_constant_result does, without importing the compiler: that takes a second at every start.
resolve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _resolve(backend: str, what: str, device: str, dtype: torch.dtype, loss: str | None = None) -> str:
    written = _written(loss)
    if backend == "torch" or (backend == "auto" and not written):
        return "torch"
    if backend != "auto" and backend not in written:
        kind = f"{backend} kernels" if written else "compiled kernels"
        raise Refused(what, f"{loss} has no {kind}, pure torch runs it", "use `backend=torch`")
    if backend == "auto":
        if device not in written or dtype == torch.float64:
            return "torch"
        if problem := obstacle(device, loss):
            _say(problem)
        return "torch" if problem else device
    if backend != device:
        raise Refused(what, f"the {backend} kernels cannot run on the device '{device}'", "use `backend=auto`")
    if dtype == torch.float64:
        raise Refused(
            what, "the kernels compute in float32, the features or weights are float64", "use `backend=torch`"
        )
    if problem := obstacle(device, loss):
        if problem == NOT_BUILT:
            raise Refused(what, f"the {backend} extension is not built", f"use `backend=torch`, or build it: {BUILD}")
        raise Refused(what, problem, f"use `backend=torch`, or {remedy()}")
    return backend


def _written(loss: str | None) -> tuple[str, ...]:
    """The devices for which the sources have kernels of `loss`."""
    return LOSSES[loss].kernels if loss in LOSSES else ("cpu", "cuda")


def asked(backend: str) -> tuple[str, str]:
    """The backend that is asked for, and the name of what asks: the argument, or for "auto" CIFARNET_BACKEND.

    Raises:
        Refused: it is none of BACKENDS.
    """
    what = "backend"
    if backend == "auto" and os.environ.get("CIFARNET_BACKEND"):
        backend, what = os.environ["CIFARNET_BACKEND"], "CIFARNET_BACKEND"
    if backend not in BACKENDS:
        raise Refused(what, f"'{backend}' is not known", f"choose from {', '.join(BACKENDS)}")
    return backend, what


def obstacle(device: str, loss: str | None = None) -> str | None:
    """The reason why the extension cannot run `loss` (any, without) on `device` ("cpu", "cuda"), or None.

    NOT_BUILT where there is none. It loads what is there, once.
    """
    global _why_not
    if _extension_path() is None:
        return _why_absent()
    if _extension is None and _why_not is None:
        _why_not = _load(_extension_path() or "")
    return _why_not or _problem(device, loss)


def _why_absent() -> str:
    if others := extension_file.built_for_others():
        return f"{', '.join(others)} is built for another Python"
    if elsewhere := extension_file.built_elsewhere():
        return f"it is in {elsewhere}, and Python found {extension_file.PACKAGE} first, in the current folder or by PYTHONPATH"
    return NOT_BUILT


def remedy() -> str:
    """The advice that goes with an `obstacle`, as a clause."""
    return f"start in another folder, or {REBUILD}" if extension_file.built_elsewhere() else REBUILD


@functools.cache
def _say(problem: str) -> None:
    """Warns once a process, and once a machine under torchrun."""
    if local_number() == 0:
        text = problem if problem == NOT_BUILT else f"the compiled margin head is not used: {problem}; {remedy()}"
        warnings.warn(text, stacklevel=4)


def build_info() -> dict[str, str]:
    """The extension's build: its torch, cuda ("" without), archs, sets; empty where it is not built or its file is broken."""
    path = _extension_path()
    try:
        return extension_file.read_stamp(path) if path else {}
    except ValueError:
        return {}


def build_tag() -> str:
    """Tells one build of the extension from another; empty where it is not built.

    torch.compile keeps graphs on disk and does not know when an operator in one of them has changed: this goes into
    its cache's key (`torch.compiler.config.cache_key_tag`).
    """
    path = _extension_path()
    if path is None:
        return ""
    status = os.stat(path)
    return f"cifarnet {status.st_size} {status.st_mtime_ns}"


def calls() -> dict[str, int]:
    """How many losses each backend has computed in this process (pure torch: those outside torch.compile)."""
    cpu, cuda = _extension.calls() if _extension is not None else (0, 0)
    return {"torch": _torch_calls, "cpu": cpu, "cuda": cuda}


def loss_number(loss: str) -> int:
    """The number by which its operator, `margin_loss` or `one_vs_all`, knows `loss`; the extension must be loaded (see `resolve`)."""
    return _loss_numbers[loss]


def numbers_of(call: Kernel) -> list[float]:
    """`call` as the operators take it: the loss's number, scale, margin, constants."""
    return [float(_loss_numbers[call.loss]), call.scale, call.margin, *call.constants]


def count_torch_call() -> None:
    """Note that pure torch computed a loss."""
    global _torch_calls
    if not torch.compiler.is_compiling():
        _torch_calls += 1


def margin_loss(
    features: Tensor, weight: Tensor, labels: Tensor, call: Kernel, state: Tensor, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss, the state as it is from now on (moved in training), and rows of each sample; `resolve` must have allowed it.

    weight may be [C, K, D], K prototypes a class: labels are then places among all C K of them, each that of the nearest one of its
    class. features and weight may be float32, bfloat16 or float16, each its own; sums are float32. The rows are all that the extension
    keeps of a sample [N, statistics]; the first four columns: |z|, c_y, the largest other cosine, log S over the others.
    A label out of range raises IndexError on the CPU; on CUDA it is a device-side assertion, reported at the next
    synchronisation.

    Raises:
        NotImplementedError: within a transform of torch.func or forward-mode AD; and in backward, for a second derivative.
    """
    refuse_transforms()
    inputs = features, weight, labels, state, numbers_of(call), training, call.margins, call.weights
    loss, new_state, rows, _ = torch.ops.cifarnet.margin_loss(*inputs)
    return loss, new_state, rows


def _problem(device: str, loss: str | None = None) -> str | None:
    """The reason why the loaded extension cannot run `loss` on `device`, or None."""
    if loss is not None and (LOSSES[loss].borrows or loss) not in _loss_numbers:
        return f"it has no loss '{loss}'"
    if device == "cpu":
        return None
    info = build_info()
    if not info["cuda"]:
        return "it is built without CUDA"
    for number in range(torch.cuda.device_count()):  # any of them may be the one
        major, minor = torch.cuda.get_device_capability(number)
        if not runs_on(info["archs"], major, minor):
            return f"it is built for the GPU architectures {info['archs']} and this GPU is {major}.{minor}"
    return None


def _load(path: str) -> str | None:
    global _extension
    try:
        info = extension_file.read_stamp(path)
    except ValueError as error:
        return str(error)
    if info["torch"] != torch.__version__:
        return f"it is built for torch {info['torch']} and this is torch {torch.__version__}"
    try:
        _extension = importlib.import_module("cifarnet._C")
    except ImportError as error:
        return f"it cannot be loaded ({str(error).splitlines()[0]})"
    if getattr(_extension, "interface", 1) != INTERFACE:
        return "it is built from older sources"
    for names in (_extension.losses(), _extension.one_vs_all_losses()):
        _loss_numbers.update((name, number) for number, name in enumerate(names))
    register_fakes(_extension)
    one_vs_all.register_fake()
    return None
