"""Seconds from the command to the first training step, beyond torch's imports, of CIFAR-10 in each layout; and a peer's reading.

    python scripts/bench/layouts.py DATA_DIR WORK [--only binary python] [--json RESULT]

WORK, an empty folder or one of an earlier call, gets the layouts (about 1.2 GB). Each start is a process of its own: the first
with an empty cache, then twice with what that one left. The files are in the system's cache each time. torch's imports are
`import torch` and that of its compiler, which every optimizer of torch imports when it is made, compiled or not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "proof")]

# Prints the seconds from the end of torch's imports to the end of the first step.
START = """
import sys, time, torch, torch._dynamo
begun = time.perf_counter()
import dataclasses
from pathlib import Path
from cifarnet.core.config import TrainConfig
from cifarnet.engine.fit import fit
from cifarnet.engine.loop import Watcher

class First(Watcher):
    def step(self, run):
        print(time.perf_counter() - begun, flush=True)
        import os
        os._exit(0)

    def warn(self, message):
        pass

dataset, place, out = sys.argv[1:]
fit(TrainConfig(arch="baseline", dataset=dataset, data_dir=place, device="cpu"), Path(out), watcher=First())
"""
TORCHVISION = """
import sys, time, torch, torchvision, numpy
from torchvision.transforms import PILToTensor
begun = time.perf_counter()
kind, place = sys.argv[1:]
if kind == "python":
    [torchvision.datasets.CIFAR10(place, train=train) for train in (True, False)]
elif kind == "folder":
    for part in ("train", "test"):
        images = [image for image, _ in torchvision.datasets.ImageFolder(f"{place}/{part}", PILToTensor())]
elif kind == "parquet":
    import io, pyarrow.parquet as pq
    from pathlib import Path
    from PIL import Image
    for path in Path(place).glob("*.parquet"):
        for row in pq.read_table(path).column(0).to_pylist():
            numpy.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
print(time.perf_counter() - begun)
"""
PEERS = {"python": "torchvision CIFAR10 (integrity check off)", "folder": "torchvision ImageFolder, one process",
         "parquet": "pyarrow and Pillow, one process"}  # fmt: skip


def seconds(code: str, *arguments: str, **environment: str) -> float:
    """What the code prints, in a process of its own."""
    line = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(
        line, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, stdout=subprocess.PIPE, text=True
    )
    return round(float(done.stdout.split()[-1]), 2) if done.stdout else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import one_set

    from cifarnet.data import load

    places = one_set.places_in(given.work)
    if not given.work.exists():
        one_set.write_layouts(load("cifar10", given.data_dir, download=False), given.work)
    found = {}
    for name in given.only or places:
        with tempfile.TemporaryDirectory() as cache:
            start = (START, one_set.LAYOUTS[name], str(places[name]))
            times = [seconds(*start, f"{cache}/run{n}", XDG_CACHE_HOME=f"{cache}/cache") for n in range(3)]
        # torchvision's own check of the checksums is of the published files, which these need not be
        quiet = TORCHVISION.replace(
            "begun =",
            "torchvision.datasets.CIFAR10._check_integrity = lambda _: True\n"
            "torchvision.datasets.CIFAR10._load_meta = lambda _: None\nbegun =",
        )
        peer = seconds(quiet, name, str(places[name])) if name in PEERS else None
        found[name] = {"first": times[0], "later": min(times[1:]), "peer": peer, "what": PEERS.get(name)}
        print(name, found[name], f"load {os.getloadavg()[0]:.1f}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
