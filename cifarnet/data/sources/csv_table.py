"""A CSV that lists images with their labels: a path and a label a line, perhaps the part of the set too."""

import csv
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifarnet.core.errors import Refused, plural, printable
from cifarnet.core.plain_file import read_text
from cifarnet.core.warn import warn
from cifarnet.data.dataset import Dataset
from cifarnet.data.found import Found
from cifarnet.data.images.formats import SUFFIXES
from cifarnet.data.images.index import Listing, indexed_dataset, names
from cifarnet.data.images.streamed import StreamedSplit
from cifarnet.data.request import Request
from cifarnet.data.sources.csv_columns import PARTS, Columns, find_columns, places
from cifarnet.data.sources.folder import Files, key_of, stamp_of
from cifarnet.data.sources.labels import encode_labels
from cifarnet.data.sources.layouts import TABLES, TEST, TRAIN, VAL, find_root, holds_images, look, role_of
from cifarnet.data.sources.left_out import LeftOut
from cifarnet.data.sources.splits import check_trained, stratified

CEILING = 1 << 30  # bytes of a table
SHAPE = "a CSV has a line for each image, with its path and its label, under a line of headings"
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Listed:
    """The lines of a CSV that name an image: paths as they are written, labels, parts ("" where none is said)."""

    paths: list[str]
    labels: list[str]
    parts: list[str]


def load_csv(request: Request) -> Dataset:
    """Images listed in a CSV (or TSV), with their labels.

    The columns are told by their headings, else by what is in them, unless `image_column` and `label_column` name them;
    a column `split` with train, test or val says which part an image belongs to (another word there leaves the line out),
    else a test set is made (`stratified`).
    Paths count from the CSV's folder; of a name without its suffix, and of one in `train/` beside the CSV, the file is
    found too. Classes are the labels, sorted, as numbers where all are numbers. Order: that of the lines.

    Raises:
        Refused: no CSV, columns that cannot be told, files that are not there, or images that cannot be read, by name.
    """
    path = find_table(request.data_dir)
    rows = read_rows(path)
    columns = find_columns(path, rows, request.options, lambda value: find_file(path.parent, value, "") is not None)
    left = LeftOut()
    table = read_table(path, rows, columns, left)
    files, keys = find_files(path, table.paths)
    what = printable(path)
    said = f"images from {columns.said(columns.image)}, labels from {columns.said(columns.label)}"
    if columns.part is not None:
        said += f", parts from {columns.said(columns.part)}"
    elif unused := [n for n in places(columns.headings, PARTS) if n not in (columns.image, columns.label)]:
        said += f"; {columns.said(unused[0])} names no train, test or val, and is not used"
    warn(f"{what}: {said}")
    left.say(what)
    classes, labels = encode_labels(table.labels)
    train, test = divide(path, table, classes, labels, files)
    check_trained(what, classes, labels, train, "give each class at least one image for training")
    whole = StreamedSplit(files, torch.from_numpy(labels), request.image_size)
    found = Found("CSV", path, left_out=left.as_pairs())
    return indexed_dataset(
        Listing("csv", classes, whole, keys, train, test, os.path.realpath(path), found), request.progress
    )


def find_table(given: Path | None) -> Path:
    """The CSV that `data_dir` names: the file, or the one in a folder; of several that of the training images."""
    if given is None:
        raise Refused("data_dir", "csv needs it", "name the CSV file")
    if not given.is_dir():
        return given
    try:
        root = find_root(given)
        tables = look(root).ending(TABLES)
    except OSError as error:
        raise Refused(printable(given), f"cannot be read ({error.strerror})", "name the CSV file") from error
    chosen = [name for name in tables if "train" in name.lower()] if len(tables) > 1 else tables
    if len(chosen) != 1:
        why = f"{len(tables)} CSV files in it: {names(tables)}" if tables else "no CSV in it"
        raise Refused(printable(given), why, "name the CSV file")
    if others := sorted(set(tables) - {*chosen}):
        warn(f"{printable(given)}: {printable(chosen[0])} is read; left out: {names(others)}")
    return root / chosen[0]


def read_rows(path: Path) -> list[list[str]]:
    """The lines of a CSV that are not empty, cells stripped.

    Raises:
        Refused: it cannot be read, is no text, or has fewer than two lines or columns.
    """
    what = printable(path)
    try:
        text = read_text(path, CEILING)
        first = text[: text.find("\n")] if "\n" in text else text
        delimiter = max(DELIMITERS, key=first.count)
        reader = csv.reader(text.splitlines(), delimiter=delimiter)
        stripped = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        numbered = [(number, row) for number, row in stripped if any(row)]
    except OSError as error:
        reason = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        )
        raise Refused(what, reason, "name a CSV file, in UTF-8") from error
    except csv.Error as error:
        raise Refused(what, f"is no CSV ({printable(str(error))})", SHAPE) from error
    rows = [row for _, row in numbered]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise Refused(
            what, f"has {plural(len(rows), 'line')} of {plural(len(rows[0]) if rows else 0, 'column')}", SHAPE
        )
    for number, row in numbered:
        if len(row) != len(rows[0]):
            fix = "fill the line up, or remove it"
            if len(row) > len(rows[0]):
                fix = f"put text with {delimiter!r} in it into quotes"
            raise Refused(what, f"line {number} has {plural(len(row), 'column')}, the first {len(rows[0])}", fix)
    return rows


def read_table(path: Path, rows: list[list[str]], columns: Columns, left: LeftOut) -> Listed:
    """The lines that have a path and a label, and a part where a column says it; the others are counted."""
    table = Listed([], [], [])
    for row in rows[columns.headed :]:
        image, label = row[columns.image], row[columns.label]
        if not image or not label:
            left["lines without a path" if not image else "lines without a label", ""] += 1
            continue
        cell = "" if columns.part is None else row[columns.part]
        part = "" if columns.part is None else role_of(cell)
        if part is None:
            left["lines whose part is unknown", printable(cell)[:20] or "empty"] += 1
            continue
        table.paths.append(image)
        table.labels.append(label)
        table.parts.append(part)
    if not table.paths:
        raise Refused(printable(path), f"no line has a path and a label ({left.in_words()})", SHAPE)
    return table


def find_file(folder: Path, value: str, like: str) -> tuple[str, str] | None:
    """The file that a path in the CSV means, and how it was found, to be tried first for the next; None: there is none.

    Args:
        like: what was added to the last one, as "train/|.png".
    """
    if "\0" in value:
        return None
    tried = [like] if like else []
    forms = [value, value.replace("\\", "/"), *(unicodedata.normalize(form, value) for form in ("NFC", "NFD"))]
    for name in dict.fromkeys(forms):
        for way in (
            *tried,
            *(f"{before}|{after}" for before in ("", "train/", "images/") for after in ("", *SUFFIXES)),
        ):
            before, after = way.split("|")
            place = os.path.join(folder, before, name + after)
            if os.path.isfile(place):
                return place, way
    return None


def find_files(path: Path, values: list[str]) -> tuple[Files, np.ndarray]:
    """The files that the paths mean, and their keys. Raises Refused where some are not there, by name."""
    folders: dict[str, int] = {}
    folder_of, called, sizes, keys, missing, way = [], [], [], bytearray(), [], ""
    for value in values:
        found = find_file(path.parent, value, way)
        if found is None:
            missing.append(value)
            continue
        place, way = found
        size, stamp = stamp_of(place)
        folder, name = os.path.split(place)
        folder_of.append(folders.setdefault(folder, len(folders)))
        called.append(os.fsencode(name))
        sizes.append(size)
        keys += key_of(os.fsencode(os.path.relpath(folder, path.parent)), called[-1], stamp)
    if missing:
        why = f"{len(missing):,} of {plural(len(values), 'image')} are not there: {names(missing)}"
        raise Refused(printable(path), why, f"paths count from {printable(path.parent)}")
    arrays = np.array(folder_of, dtype=np.int32), np.array(called, dtype=bytes), np.array(sizes, dtype=np.int64)
    return Files(tuple(folders), *arrays), np.frombuffer(keys, dtype=np.int64)


def divide(
    path: Path, table: Listed, classes: Sequence[str], labels: np.ndarray, files: Files
) -> tuple[Tensor, Tensor]:
    """The numbers of the training images and of the test images, int64 each, in order.

    Raises:
        Refused: the CSV tells parts, and one of the two is empty.
    """
    what, parts = printable(path), np.array(table.parts)
    if (parts == "").all():
        unlabelled = path.parent / TEST
        if holds_images(unlabelled, 0) and not any(folder.startswith(str(unlabelled)) for folder in files.folders):
            text = "its images have no labels here, so they are no test set and are not used"
            warn(f"{printable(unlabelled)}: {text}")
        return stratified(what, classes, labels, (os.fsencode(value) for value in table.paths))
    if (parts == VAL).any() and (parts == TEST).any():
        warn(f"{what}: left out: {plural(int((parts == VAL).sum()), 'image')} of val (test is the test set)")
    train, test = parts == TRAIN, parts == (TEST if (parts == TEST).any() else VAL)
    if not train.any():
        raise Refused(what, "names no training images", "write train in their column of parts")
    if not test.any():
        index = torch.from_numpy(train.nonzero()[0])
        called = [os.fsencode(table.paths[n]) for n in index.tolist()]
        return tuple(index[part] for part in stratified(what, classes, labels[train], called))  # type: ignore[return-value]
    return torch.from_numpy(train.nonzero()[0]), torch.from_numpy(test.nonzero()[0])
