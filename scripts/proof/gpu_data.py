"""Finds CIFAR-10 in the folders that are named and makes of it what --data-dir reads.

    python scripts/proof/gpu_data.py FOLDER... --to DEST

In this order: cifar-10-batches-bin/ as it is; the exact images as packed sheets (exact/, its files spread over the folders as
they travelled) with the unpack.py that belongs to them; the JPEG copy (cifar10-jpeg.tar.xz), likewise. Prints two lines: the
folder, and which images they are. What is under DEST already is not unpacked again.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOOSE, ARCHIVE = "cifar-10-batches-bin", "cifar10-jpeg.tar.xz"
FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
SHEETS = {f"{name}-{part}.webp" for name in FILES for part in range(10)} | {f"{name}.labels" for name in FILES}
SHEETS |= {"substituted.tsv"}
EXACT = "CIFAR-10 (21 of 10,000 test images and 82 training images from a JPEG copy)"
COPY = "CIFAR-10, JPEG copy"


def gather(folders: list[Path], to: Path) -> None:
    """Links the sheets of all folders, the archive and unpack.py into one folder."""
    (to / "exact").mkdir(parents=True)
    for folder in folders:
        for path in [*folder.glob("exact/*"), *folder.glob("*")]:
            place = to / "exact" / path.name if path.name in SHEETS else to / path.name
            if path.is_file() and not place.exists():
                place.symlink_to(path.resolve())


def unpack(folders: list[Path], dest: Path) -> tuple[Path, str]:
    """The folder with the unpacked images, and which they are."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "source")
        gather(folders, source)
        missing = SHEETS - {path.name for path in (source / "exact").iterdir()}
        if missing and not (source / ARCHIVE).exists():
            sys.exit(f"error: {folders[0]}: no {LOOSE}/, no {ARCHIVE}, and {len(missing)} files of exact/ are missing")
        kind, words = ("jpeg", COPY) if missing else ("exact", EXACT)
        if (dest / kind).is_dir():
            return dest / kind, words
        if not (source / "unpack.py").exists():
            sys.exit(f"error: {folders[0]}: no unpack.py is beside the images")
        dest.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=dest))
        try:
            options = ["--jpeg"] if missing else []
            subprocess.run(
                [sys.executable, source / "unpack.py", *options, half], stdout=sys.stderr, check=True, timeout=200
            )
            os.replace(half, dest / kind)  # whole or not at all
        except subprocess.SubprocessError as error:
            sys.exit(f"error: {source / 'unpack.py'}: {error}")
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return dest / kind, words


def main() -> None:
    """Prints the folder and the words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    absent = [str(folder) for folder in options.folders if not folder.is_dir()]
    if absent:
        sys.exit(f"error: {', '.join(absent)}: there is no such folder")
    loose = [folder for folder in options.folders if (folder / LOOSE).is_dir()]
    folder, words = (loose[0].resolve(), "CIFAR-10 as found") if loose else unpack(options.folders, options.to)
    print(f"{folder}\n{words}")


if __name__ == "__main__":
    main()
