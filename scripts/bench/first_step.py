#!/usr/bin/env python3
"""Seconds from the command to the first training step on a fresh machine, whose network gives so many MB/s.

    python scripts/bench/first_step.py DIR [--rate 20] [--arch baseline] [--json FILE]

DIR holds cifar-10-batches-bin/. Its files are packed as the official archive is, and served on 127.0.0.1, no faster than the
rate. `cifarnet train --dataset cifar10` then starts in a process of its own, with an empty cache, and ends after its first step.
Only the archive's address, size and checksums are others than the official ones.
"""

import argparse
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
FOLDER, STEP = "cifar-10-batches-bin", 0.02  # seconds between two pieces


def pack(folder: Path, path: Path) -> None:
    """The files as a .tar.gz."""
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for file in sorted((folder / FOLDER).glob("*.bin")):
            tar.add(file, f"{FOLDER}/{file.name}")


def serve(path: Path, rate: float) -> str:
    """Serves a file at `rate` bytes a second to all its readers together; returns its address."""
    data = path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-gzip")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            begun, piece = time.monotonic(), int(rate * STEP)
            for first in range(0, len(data), piece):
                time.sleep(max(0.0, begun + first / rate - time.monotonic()))
                self.wfile.write(data[first : first + piece])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/{path.name}"


def train(url: str, size: int, md5: str, sha256: str, arguments: list[str]) -> None:
    """In the process that is timed: the command, with another address, until its first step is done."""
    from cifarnet.cli import run
    from cifarnet.data.sources import server
    from cifarnet.data.sources.cifar import SETS
    from cifarnet.data.sources.mirrors import MIRRORS
    from cifarnet.engine import loop

    MIRRORS.clear()
    server.PLAIN = ("127.0.0.1",)
    archive = replace(SETS["cifar10"].archive, url=url, size=size, md5=md5, sha256=sha256)
    SETS["cifar10"] = replace(SETS["cifar10"], archive=archive)
    step = loop.train_step

    def first_step(*values: object) -> None:
        step(*values)
        print(time.time(), flush=True)
        os._exit(0)

    loop.train_step = first_step
    sys.exit(run(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=20.0, help="MB/s")
    parser.add_argument("--arch", default="baseline")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "cifar-10-binary.tar.gz"
        pack(options.folder, archive)
        data = archive.read_bytes()
        sums = [str(len(data)), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()]
        url = serve(archive, options.rate * 1e6)
        line = [sys.executable, __file__, "--train", url, *sums]
        line += ["train", "--dataset", "cifar10", "--arch", options.arch, "--out", f"{temporary}/run"]
        environment = os.environ | {"XDG_CACHE_HOME": f"{temporary}/cache", "HOME": temporary, "no_proxy": "*"}
        begun = time.time()
        done = subprocess.run(line, env=environment, cwd=temporary, stdout=subprocess.PIPE, text=True, check=True)
        seconds = float(done.stdout.split()[-1]) - begun
    found = {"megabytes": len(data) / 1e6, "rate": options.rate, "arch": options.arch, "seconds": round(seconds, 2)}
    print(json.dumps(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6:])
    main()
