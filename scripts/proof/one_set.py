"""One set, one run: CIFAR-10 in six layouts has one digest, and with --canonical-order trains to the same weights, bit for bit.

    python scripts/proof/one_set.py DATA_DIR WORK [--epochs 1] [--json RESULT]

WORK gets the layouts (about 1.2 GB), unless an earlier call left them there, and the runs.
"""

import argparse
import csv
import io
import json
import sys
import tarfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "data"))
from pickled import python2

from cifarnet.core.config import TrainConfig
from cifarnet.data import load
from cifarnet.data.dataset import Dataset
from cifarnet.data.identity import identity_of
from cifarnet.data.sources.cifar_sets import SETS
from cifarnet.data.writers import Counter, pngs, splits, write_binary, write_images, write_parquet
from cifarnet.engine.fit import fit

LAYOUTS = {"binary": "cifar10", "python": "cifar10", "parquet": "parquet", "folder": "folder", "csv": "csv",
           "shards": "webdataset"}  # fmt: skip
CONFIG = TrainConfig(
    arch="baseline", loss="arcface", batch_size=128, canonical_order=True, device="cpu", precision="fp32"
)


def write_layouts(data: Dataset, work: Path) -> dict[str, Path]:
    """Writes CIFAR-10 in each layout; returns what `--data-dir` is then."""
    done = Counter(0, None)
    places = places_in(work)
    for name in ("binary", "python", "parquet", "folder", "shards"):
        places[name].mkdir(parents=True)
    write_binary(data, None, places["binary"], done)
    write_batches(data, places["python"])
    write_parquet(data, places["parquet"], done)
    write_images(data, places["folder"], done)
    write_shards(data, places["shards"])
    write_list(places["folder"], places["csv"])
    return places


def places_in(work: Path) -> dict[str, Path]:
    """Of each layout what `--data-dir` is."""
    return {name: work / name for name in LAYOUTS} | {"csv": work / "list.csv"}


def write_batches(data: Dataset, place: Path) -> None:
    """Python batches, as Python 2 spelled the published ones."""
    cifar = SETS["cifar10"]
    folder = place / cifar.python.folder
    folder.mkdir()
    for (_, split), files in zip(splits(data), (cifar.train, cifar.test), strict=True):
        first = 0
        for name in files:
            part = slice(first, first := first + cifar.count(name))
            content = {"labels": split.labels[part].tolist(), "data": split.images[part].flatten(1).numpy()}
            (folder / name.removesuffix(".bin")).write_bytes(python2(content))


def write_list(folder: Path, path: Path) -> None:
    """A CSV of the images in a folder."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "split"])
        for image in sorted(folder.glob("*/*/*.png")):
            lines.writerow([image.relative_to(path.parent), image.parent.name, image.parents[1].name])


def write_shards(data: Dataset, place: Path) -> None:
    """A tar of each split, and the names of the classes."""
    (place / "classes.txt").write_text("\n".join(data.classes) + "\n")
    for name, split in splits(data):
        with tarfile.open(place / f"{name}-0.tar", "w") as tar:
            for index, (label, png) in enumerate(pngs(split)):
                for suffix, content in (("png", png), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{index:05d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def compare(places: dict[str, Path], runs: Path, config: TrainConfig) -> dict[str, dict[str, object]]:
    """Of each layout its digest, seconds of the first and of a later reading, and whether its weights are the first one's."""
    found: dict[str, dict[str, object]] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, place in places.items():
        times = []
        for _ in range(2):
            started = time.perf_counter()
            data = load(LAYOUTS[name], place)
            times.append(round(time.perf_counter() - started, 2))
        run = fit(config, runs / name, dataset=data)
        mine = load_file(run / "last.safetensors")
        weights = weights or mine
        same = mine.keys() == weights.keys() and all(torch.equal(mine[key], weights[key]) for key in mine)
        digest = identity_of(data.classes, data.train, data.test).digest
        found[name] = {"digest": digest, "seconds_first": times[0], "seconds_later": times[1], "same_weights": same}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    places = places_in(given.work)
    if not given.work.exists():
        write_layouts(load("cifar10", given.data_dir, download=False), given.work)
    config = TrainConfig.from_dict(CONFIG.to_dict() | {"epochs": given.epochs})
    found = compare(places, given.work / "runs", config)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
