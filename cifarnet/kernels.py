"""Which backend runs the margin head: pure torch, or the compiled extension on the CPU or on CUDA."""

from cifarnet.errors import Refused

BACKENDS = ("auto", "torch", "cpu", "cuda")


def resolve(backend: str, device: str) -> str:
    """The backend that runs the head on `device` ("cpu", "cuda", "mps").

    Raises:
        Refused: a backend was asked for by name and is not there.
    """
    if backend in ("cpu", "cuda"):
        raise Refused("--backend", f"the {backend} extension is not built", "use --backend torch or auto")
    return "torch"
