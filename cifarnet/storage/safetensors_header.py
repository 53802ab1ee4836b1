"""The header of a safetensors file, which may come from a stranger: nothing in it is taken on trust."""

import json
import os
from pathlib import Path
from typing import Any

from cifarnet.core.errors import Refused
from cifarnet.core.plain_file import open_plain

CHECKPOINT = "cifarnet-1"  # the `format` of our checkpoints and training states
MAX_HEADER = 100_000_000  # bytes; safetensors' own ceiling
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")


def read_metadata(path: Path, format_name: str, kind: str) -> dict[str, str]:
    """The metadata of our checkpoint at `path`.

    Args:
        format_name: the `format` that the file must say; kind: "model" or "state".

    Raises:
        Refused: no such file, a pickle, a broken or hostile header, no metadata of ours, another kind.
    """
    return check_metadata(path, read_header(path).get("__metadata__"), format_name, kind)


def check_metadata(path: Path, metadata: Any, format_name: str, kind: str) -> dict[str, str]:
    """`metadata` as found in the checkpoint at `path`, once it is of our format and kind. Raises as `read_metadata`."""
    if not isinstance(metadata, dict) or metadata.get("format") != format_name:
        raise Refused(
            str(path), "has no cifarnet metadata (architecture, classes, mean and std), which is never guessed",
            "use a checkpoint that cifarnet train wrote",
        )  # fmt: skip
    if metadata.get("kind") != kind:
        fix = "to start from its weights use `init_from`" if kind == "state" else "use last.safetensors of that run"
        raise Refused(str(path), f"is a {metadata.get('kind')} file, not a {kind} file", fix)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise Refused(str(path), "its metadata is not text", "take another checkpoint")
    return metadata


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header, its length checked against the file's before it is read, its keys against repetition.

    Raises:
        Refused: no such file, a pickle, or a header that is cut short, too long or broken.
    """
    # Not safetensors.safe_open: of a key that stands twice it takes one in silence, and its errors name no way out.
    try:
        with open_plain(path) as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            whole = len(start) == 8 and length <= min(os.fstat(file.fileno()).st_size - 8, MAX_HEADER)
            refuse_pickle(path, start, whole)
            if not whole:
                raise Refused(str(path), "is not a safetensors file, or is cut short", "take another checkpoint")
            text = file.read(length)
    except FileNotFoundError as error:
        raise Refused(str(path), "there is no such file", "name a .safetensors file or a run folder") from error
    except OSError as error:
        raise Refused(
            str(path), f"cannot be read ({error.strerror})", "name a .safetensors file or a run folder that can be read"
        ) from error
    try:
        header = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise Refused(str(path), f"its header is broken ({error})", "take another checkpoint") from error
    if not isinstance(header, dict):
        raise Refused(str(path), "its header is broken (no table)", "take another checkpoint")
    return header


def refuse_pickle(path: Path, start: bytes, whole: bool) -> None:
    """Refuses pickles by name and by first bytes (a zip of torch.save, or a bare pickle): loading one runs its code.

    A header of 640 or 1,152 bytes has the first bytes of a bare pickle, so that one is told by a length that the file does not have.
    """
    bare = not whole and start.startswith((b"\x80\x02", b"\x80\x04"))
    if path.suffix.lower() in PICKLE_SUFFIXES or bare or start.startswith(b"PK\x03\x04"):
        raise Refused(
            str(path), "is a pickle, which can run code when loaded, and is never loaded",
            "convert it to safetensors where you trust it",
        )  # fmt: skip


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table
