"""Lists of pairs: a CSV with the columns a, b, same (and fold), or LFW's pairs.txt. And folders of identities."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifarnet.analysis.verification.pairs import ListedPairs, cosines_of
from cifarnet.core.errors import Refused, plural, printable
from cifarnet.core.plain_file import read_text
from cifarnet.data.sources.csv_table import DELIMITERS

TRUTH = {word: True for word in ("1", "1.0", "true", "yes", "same")} | {
    word: False for word in ("0", "0.0", "false", "no", "different")
}
LAYOUT = "give a CSV with the columns a, b, same (1 or 0), or LFW's pairs.txt"
Line = tuple[str, str, bool, str, int]  # two images, same, fold, and the number of the line


@dataclass(frozen=True)
class PairList:
    """Listed pairs of image files.

    Args:
        files: each image once, however its path is spelt; labels: int64 [N], its identity: its folder in LFW's layout, else
            the images that `same` pairs join are of one, and an image that none joins is of its own.
        places: int64 [P, 2], the two images of each pair; same: bool [P]; folds: int64 [P], or None without folds.
    """

    files: tuple[Path, ...]
    labels: np.ndarray
    places: np.ndarray
    same: np.ndarray
    folds: np.ndarray | None

    def repeated(self, usable: np.ndarray) -> int:
        """How many lines list a pair again, in either order, of those that count. `usable`: bool [N]."""
        places = self.places[usable[self.places].all(axis=1)]
        return len(places) - len(np.unique(np.sort(places, axis=1), axis=0))

    def scored(self, units: np.ndarray, usable: np.ndarray) -> tuple[ListedPairs, np.ndarray | None]:
        """The pairs with their scores, and their folds as `ListedPairs` has them; without pairs of images that are not usable.

        Args:
            units: unit rows [N, D], in the order of `files`; usable: bool [N].
        """
        kept = usable[self.places].all(axis=1)
        places, same = self.places[kept], self.same[kept]
        used, places = np.unique(places, return_inverse=True)
        places, labels = places.reshape(-1, 2), np.unique(self.labels[used], return_inverse=True)[1]
        scores = cosines_of(units[used], places)
        pairs = ListedPairs(labels.astype(np.int64), scores[same], scores[~same], places[same], places[~same])
        folds = None if self.folds is None else self.folds[kept]
        return pairs, None if folds is None else np.concatenate([folds[same], folds[~same]])


def read_pairs(path: Path, root: Path | None = None) -> PairList:
    """The pairs that a file lists.

    Args:
        path: a CSV with the columns a, b, same and perhaps fold, or LFW's pairs.txt, told by its first line.
        root: the folder that the images' names begin in; None: that of the file.

    Raises:
        Refused: it cannot be read, a line is not a pair (named by its number), or two lines contradict each other.
    """
    root = path.parent if root is None else root
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError as error:
        raise Refused(printable(path), "there is no such file", LAYOUT) from error
    except OSError as error:
        raise Refused(printable(path), f"cannot be read ({error.strerror})", LAYOUT) from error
    words = lines[0].split() if lines else []
    is_lfw = 1 <= len(words) <= 2 and all(word.isdecimal() for word in words)
    rows = list(lfw_rows(path, lines, root) if is_lfw else csv_rows(path, lines))
    if not rows:
        raise Refused(printable(path), "lists no pairs", LAYOUT)
    return numbered(path, rows, root, by_folder=is_lfw)


def csv_rows(path: Path, lines: Sequence[str]) -> Iterator[Line]:
    """The pairs of a CSV, whose cells stand between commas, semicolons, tabs or bars."""
    first_line = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=max(DELIMITERS, key=first_line.count))
    header = [cell.strip().lower() for cell in next(reader, [])]
    if not {"a", "b", "same"} <= set(header):
        raise Refused(printable(path), "its first line does not name the columns a, b, same", LAYOUT)
    first, second, same = (header.index(name) for name in ("a", "b", "same"))
    fold = header.index("fold") if "fold" in header else None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise wrong(path, reader.line_num, f"has {plural(len(row), 'cell')}, the first line {len(header)}")
            truth = TRUTH.get(row[same].strip().lower())
            if truth is None:
                raise wrong(path, reader.line_num, f"'{printable(row[same])}' says neither same nor different")
            in_fold = row[fold].strip() if fold is not None else ""
            yield row[first].strip(), row[second].strip(), truth, in_fold, reader.line_num
    except csv.Error as error:
        raise wrong(path, reader.line_num, f"is not CSV ({error})") from error


def lfw_rows(path: Path, lines: Sequence[str], root: Path) -> Iterator[Line]:
    """The pairs of LFW's pairs.txt: `folds n`, then in each fold n lines `name i j` and n lines `name i other j`."""
    numbers = [int(word) for word in lines[0].split()]
    folds, each = numbers if len(numbers) == 2 else (1, numbers[0])
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if not each or len(rows) != 2 * folds * each:
        why = f"its first line promises {2 * folds * each:,} pairs, {plural(len(rows), 'line')} {'follows' if len(rows) == 1 else 'follow'}"
        raise Refused(printable(path), why, LAYOUT)
    for place, (number, line) in enumerate(rows):
        words = line.strip().split("\t") if "\t" in line.strip() else line.split()
        same = place % (2 * each) < each
        if len(words) != (3 if same else 4):
            raise wrong(path, number, "is not `name i j`" if same else "is not `name i other j`")
        name, first, *other, second = words
        if not (first.isdecimal() and second.isdecimal()):
            raise wrong(path, number, "does not number its images")
        images = (lfw_image(root, who, int(index)) for who, index in ((name, first), ((other or [name])[0], second)))
        fold = str(place // (2 * each)) if folds > 1 else ""
        yield next(images), next(images), same, fold, number


def lfw_image(root: Path, name: str, number: int) -> str:
    """`name/name_0001.jpg`, or .png where that is there."""
    stem = f"{name}/{name}_{number:04d}"
    return stem + next((suffix for suffix in (".jpg", ".png", ".jpeg") if (root / (stem + suffix)).is_file()), ".jpg")


def wrong(path: Path, line: int, why: str) -> Refused:
    """The refusal of a line."""
    return Refused(f"{printable(path)}, line {line}", why, LAYOUT)


def numbered(path: Path, rows: Sequence[Line], root: Path, by_folder: bool) -> PairList:
    """The list of these lines, each image and each identity with its number."""
    known: dict[str, int] = {}
    named = [[os.path.normpath(name) for name in row[:2]] for row in rows]
    places = np.array([[known.setdefault(name, len(known)) for name in pair] for pair in named], np.int64)
    for (a, b, _, _, line), (first, second) in zip(rows, places.tolist(), strict=True):
        if not (a and b):
            raise wrong(path, line, "names no image")
        if first == second:
            raise wrong(path, line, "both images are the same file")
    same = np.array([row[2] for row in rows])
    if by_folder:
        labels = np.unique([name.partition("/")[0] for name in known], return_inverse=True)[1].astype(np.int64)
    else:
        labels = joined(places[same], len(known))
    contradicted = np.flatnonzero(~same & (labels[places[:, 0]] == labels[places[:, 1]]))
    if len(contradicted):
        a, b, *_, line = rows[contradicted[0]]
        raise wrong(
            path, line, f"{printable(a)} and {printable(b)} differ here, and are of one identity by other lines"
        )
    folds = {name: number for number, name in enumerate(sorted({row[3] for row in rows}))}
    if len(folds) > 1 and "" in folds:
        raise wrong(path, next(line for *_, fold, line in rows if not fold), "names no fold, as other lines do")
    of_rows = np.array([folds[row[3]] for row in rows], np.int64) if len(folds) > 1 else None
    return PairList(tuple(root / name for name in known), labels, places, same, of_rows)


def joined(pairs: np.ndarray, images: int) -> np.ndarray:
    """int64 [N]: the identity of each image, where those that pairs [P, 2] join are of one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(images, images))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def identity_folders(folder: Path) -> dict[str, Path]:
    """The folders in `folder`, by name: one an identity.

    Raises:
        Refused: it is no folder, cannot be read, or has fewer than two.
    """
    try:
        found = {
            path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")
        }
    except FileNotFoundError as error:
        raise Refused(
            printable(folder), "there is no such folder", "name one with a folder for each identity"
        ) from error
    except OSError as error:
        fix = "name one with a folder for each identity"
        raise Refused(printable(folder), f"cannot be read ({error.strerror})", fix) from error
    if len(found) < 2:
        why = f"has {len(found)} folders in it" if len(found) != 1 else "has one folder in it"
        raise Refused(printable(folder), why, "give a folder for each of two identities or more")
    return found
