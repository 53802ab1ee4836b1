"""Tensors in several safetensors files with an index, the convention of model.safetensors.index.json: each rank writes its own.

`weight_map` of the index says which file holds a tensor. Of a tensor that lies on several ranks each file holds some rows,
under the name `head.weight[0:334]`: rows 0 to 333. Each saving writes files of new names, then the index, then removes the
files that the old index named: killed at any moment, the last whole set is there.
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from cifarnet.core.distributed import ALONE, Ranks
from cifarnet.core.errors import Refused, plural
from cifarnet.core.plain_file import check_within, read_text
from cifarnet.storage.atomic import write_file
from cifarnet.storage.safetensors_header import MAX_HEADER, check_metadata, read_header, read_metadata

INDEX = ".index.json"
TAKE_ANOTHER = "take another checkpoint"


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor: `tensor` [n, ...] are those from `start` on."""

    tensor: Tensor
    start: int

    def name(self, whole: str) -> str:
        """The name of these rows of tensor `whole` in a file."""
        return f"{whole}[{self.start}:{self.start + len(self.tensor)}]"


def index_of(path: Path) -> Path:
    """The index of a set that stands in for the single file `path`: last.safetensors.index.json."""
    return path if path.name.endswith(INDEX) else path.with_name(path.name + INDEX)


def existing(path: Path) -> Path | None:
    """The single file `path` or the index of its set, whichever is there."""
    return next((candidate for candidate in (path, index_of(path)) if candidate.exists()), None)


def metadata_of(path: Path, format_name: str, kind: str) -> dict[str, str]:
    """The metadata of a single file or of a set's index. Raises Refused as `read_metadata`."""
    if path.name.endswith(INDEX):
        return check_metadata(path, _read_index(path)["metadata"], format_name, kind)
    return read_metadata(path, format_name, kind)


def files_of(path: Path) -> list[Path]:
    """The index of a set and all files of such a set beside it, those of unfinished savings too."""
    stem = re.escape(index_of(path).name.removesuffix(".safetensors" + INDEX))
    pattern = re.compile(rf"{stem}-[0-9a-f]{{8}}-\d{{5}}-of-\d{{5}}\.safetensors")
    if not path.parent.is_dir():
        return []
    parts = [file for file in path.parent.iterdir() if pattern.fullmatch(file.name)]
    return [file for file in (index_of(path), *sorted(parts)) if file.exists()]


def write_set(path: Path, tensors: Mapping[str, Tensor | Rows], metadata: dict[str, str], ranks: Ranks = ALONE) -> None:
    """Writes what the ranks hold as one set; all of them call it, and none returns before the set is there.

    Args:
        path: of the single file that the set stands in for, or of its index.
        tensors: this rank's; whole ones are taken from the first rank.
        metadata: of the first rank, goes into the index.

    Raises:
        Failed: on every rank, a file that one cannot write; the old set is kept.
    """
    index = index_of(path)
    tag = ranks.of_first(lambda: secrets.token_hex(4))
    stem = index.name.removesuffix(".safetensors" + INDEX)
    mine = {
        value.name(name) if isinstance(value, Rows) else name: value.tensor if isinstance(value, Rows) else value
        for name, value in tensors.items()
        if ranks.first or isinstance(value, Rows)
    }
    mine = {name: tensor.detach().to("cpu").contiguous() for name, tensor in mine.items()}
    file = f"{stem}-{tag}-{ranks.rank + 1:05d}-of-{ranks.world:05d}.safetensors"

    def write_part() -> tuple[str, list[str], int]:
        if mine:
            write_file(index.with_name(file), save(mine, {"kind": "part", "set": tag}))
        return file, list(mine), sum(tensor.nbytes for tensor in mine.values())

    def write_index(parts: list[tuple[str, list[str], int]]) -> None:
        size = sum(nbytes for _, _, nbytes in parts)
        document = {
            "metadata": metadata | {"set": tag, "total_size": size},
            "weight_map": {name: file for file, names, _ in parts for name in names},
        }
        write_file(index, (json.dumps(document, indent=1) + "\n").encode())
        sweep(index, {file for file, _, _ in parts})

    try:
        parts = ranks.gather(write_part)
    except BaseException:
        index.with_name(file).unlink(missing_ok=True)
        raise
    ranks.of_first(lambda: write_index(parts))


def sweep(path: Path, keep: set[str]) -> None:
    """Removes the parts beside the index that are not to be kept: those of older and of unfinished sets."""
    for part in files_of(path):
        if part != index_of(path) and part.name not in keep:
            part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Piece:
    """Where some rows of a tensor are: `file`, under `key`, rows `start` to `stop`."""

    file: Path
    key: str
    start: int
    stop: int


@dataclass(frozen=True)
class Stored:
    """A tensor of a set: its shape and type, and its pieces in order (a whole tensor is one)."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]


class TensorSet:
    """A set, opened: its index and the headers of its files are read and checked, the tensors not yet.

    Raises:
        Refused: a broken or hostile index, a file that is missing or belongs to another saving, rows that lack or overlap.
    """

    def __init__(self, path: Path, format_name: str, kind: str) -> None:
        self.path = path
        document = _read_index(path)
        self.metadata = check_metadata(path, document["metadata"], format_name, kind)
        files: dict[str, dict[str, Any]] = {}
        for name in sorted(set(document["weight_map"].values())):
            files[name] = self._read_part(name, self.metadata.get("set"))
        pieces: dict[str, list[tuple[Piece, dict[str, Any]]]] = {}
        for key, name in document["weight_map"].items():
            if key not in files[name]:
                raise self._refused(f"{name} lacks {key}")
            whole, start, stop = _parse_name(key)
            entry = files[name][key]
            rows = entry["shape"][0] if entry["shape"] else 1
            piece = Piece(path.with_name(name), key, start or 0, rows if stop is None else stop)
            if piece.stop - piece.start != rows:
                raise self._refused(f"{key} has {plural(rows, 'row')}")
            pieces.setdefault(whole, []).append((piece, entry))
        self.tensors = {whole: self._joined(whole, found) for whole, found in pieces.items()}

    def read(self, name: str, rows: range | None = None) -> Tensor:
        """A tensor, or only some of its rows; of the files that hold others nothing is read."""
        pieces = self.tensors[name].pieces
        if rows is None:
            parts = [self._read_piece(piece, None) for piece in pieces]
        else:
            parts = [
                self._read_piece(piece, range(max(rows.start, piece.start), min(rows.stop, piece.stop)))
                for piece in pieces
                if piece.start < rows.stop and rows.start < piece.stop
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read_piece(self, piece: Piece, rows: range | None) -> Tensor:
        try:
            with safetensors.safe_open(piece.file, framework="pt") as file:
                if rows is None:
                    return file.get_tensor(piece.key)
                return file.get_slice(piece.key)[rows.start - piece.start : rows.stop - piece.start]
        except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise Refused(str(piece.file), f"is broken ({error})", TAKE_ANOTHER) from error

    def _read_part(self, name: str, tag: str | None) -> dict[str, Any]:
        """The header of one file: {tensor: {shape, dtype}}."""
        file = self.path.with_name(name)
        if not file.exists():
            raise self._refused(f"{name} of the set is missing")
        try:
            check_within(file, self.path.parent)
        except OSError as error:
            raise self._refused(f"{name}: {error.strerror}") from error
        header = read_header(file)
        stamp = header.pop("__metadata__", None)
        if not isinstance(stamp, dict) or tag is None or stamp.get("set") != tag:
            raise self._refused(f"{name} belongs to another saving")
        try:
            with safetensors.safe_open(file, framework="pt") as opened:  # safetensors checks bounds, overlaps, length
                list(opened.keys())
        except (safetensors.SafetensorError, OSError) as error:
            raise Refused(str(file), f"is broken ({error})", TAKE_ANOTHER) from error
        return header

    def _joined(self, whole: str, found: list[tuple[Piece, dict[str, Any]]]) -> Stored:
        """The pieces of a tensor in order, without gap or overlap, all of one type and width."""
        found.sort(key=lambda item: (item[0].start, item[0].stop))
        expected = 0
        first = found[0][1]
        for piece, entry in found:
            if piece.start != expected:
                problem = (
                    f"lacks rows {expected} to {piece.start - 1} of" if piece.start > expected else "repeats rows of"
                )
                raise self._refused(f"{problem} {whole}")
            if entry["dtype"] != first["dtype"] or entry["shape"][1:] != first["shape"][1:]:
                raise self._refused(f"the parts of {whole} have different types or shapes")
            expected = piece.stop
        shape = (expected, *first["shape"][1:]) if first["shape"] else ()
        return Stored(tuple(shape), first["dtype"], tuple(piece for piece, _ in found))

    def _refused(self, why: str) -> Refused:
        return Refused(str(self.path), why, TAKE_ANOTHER)


def _read_index(path: Path) -> dict[str, Any]:
    """The two tables of an index, each name in them looked at: a file must lie beside the index."""
    try:
        document = json.loads(read_text(path, MAX_HEADER))
    except FileNotFoundError as error:
        raise Refused(str(path), "there is no such file", "name a checkpoint or a run folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(str(path), f"is not an index ({error})", TAKE_ANOTHER) from error
    metadata, files = (document.get(key) if isinstance(document, dict) else None for key in ("metadata", "weight_map"))
    if not isinstance(metadata, dict) or not isinstance(files, dict) or not files:
        raise Refused(str(path), "is not an index (it needs metadata and weight_map)", TAKE_ANOTHER)
    for name in files.values():
        plain = isinstance(name, str) and name.isprintable() and name.endswith(".safetensors")
        if not plain or "/" in name or "\\" in name or name.startswith("."):
            raise Refused(str(path), f"names a file that is not beside it ({name!r:.80})", TAKE_ANOTHER)
    metadata = {key: value for key, value in metadata.items() if key != "total_size"}  # a number, of no use here
    return {"metadata": metadata, "weight_map": files}


def _parse_name(key: str) -> tuple[str, int | None, int | None]:
    """`head.weight[0:334]` -> head.weight, 0, 334; a name without rows -> itself, None, None."""
    found = re.fullmatch(r"(.+)\[(\d{1,15}):(\d{1,15})\]", key)
    return (found[1], int(found[2]), int(found[3])) if found else (key, None, None)
