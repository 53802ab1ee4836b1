"""What the fuzzer damages and who reads it: real files, made here, and the function that the program reads each with."""

import dataclasses
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzz_folders import folder_cases
from fuzz_sets import damaged_index, indexed_sets, shard
from mutate import as_json, damage, damage_json, damage_safetensors
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cifarnet.analysis.plots import curves
from cifarnet.analysis.plots.confusion import numbers as confusion_numbers
from cifarnet.analysis.report.beside_tables import beside_the_report
from cifarnet.analysis.report.results import read_result
from cifarnet.analysis.report.seeds import group
from cifarnet.analysis.report.tables import scores_table
from cifarnet.core.config import TrainConfig
from cifarnet.core.signals import StopRequest
from cifarnet.data import load
from cifarnet.data.images.decode import read_image
from cifarnet.data.sources import cifar
from cifarnet.data.sources.archive import Archive
from cifarnet.engine.loop import Watcher, train
from cifarnet.engine.same_run import load_config
from cifarnet.engine.setup import build_run
from cifarnet.models.checkpoint import load_model
from cifarnet.storage.open_run import open_run
from cifarnet.storage.run_files import read_json, read_metrics

Case = Callable[[random.Random, Path], None]  # damages a file, writes it into the folder and reads it


def targets(folder: Path) -> dict[str, Case]:
    """What is fuzzed, on real files that a short training run leaves in `folder`."""
    folder, run = folder / "run", small_run(folder / "run")
    states = [path.read_bytes() for path in (folder / "state.safetensors", folder / "last.safetensors")]
    config, log = (folder / "config.json").read_bytes(), (folder / "metrics.jsonl").read_bytes()
    pictures = make_pictures()

    def safetensors(data: bytes, rng: random.Random, path: Path) -> Path:
        changed = damage_safetensors(data, rng) if rng.random() < 0.6 else damage(data, rng, states)
        path.write_bytes(changed)
        return path

    def checkpoint(rng: random.Random, place: Path) -> None:
        model, info = load_model(safetensors(states[1], rng, place / "last.safetensors"))
        if info.config.image_size <= 64:
            model(torch.zeros(1, 3, info.config.image_size, info.config.image_size))

    def state(rng: random.Random, place: Path) -> None:
        path = safetensors(states[0], rng, place / "state.safetensors")
        load_config(path)
        run.load(path)

    def image(rng: random.Random, place: Path) -> None:
        (place / "image").write_bytes(damage(rng.choice(pictures), rng, pictures))
        read_image(place / "image", 32, crop=rng.random() < 0.5)

    def config_file(rng: random.Random, place: Path) -> None:
        text = as_json(damage_json(json.loads(config), rng), rng) if rng.random() < 0.7 else damage(config, rng, [log])
        (place / "config.json").write_bytes(text)
        TrainConfig.from_dict(read_json(place / "config.json", ""), "config.json")

    def metrics(rng: random.Random, place: Path) -> None:
        lines = [as_json(damage_json(json.loads(line), rng), rng) for line in log.splitlines()]
        (place / "m").write_bytes(b"\n".join(lines) if rng.random() < 0.5 else damage(log, rng, [config]))
        curves.numbers({"run": read_metrics(place / "m")[0]})

    def summary(rng: random.Random, place: Path) -> None:
        document = json.loads((folder / "summary.json").read_text())
        (place / "summary.json").write_bytes(as_json(damage_json(document, rng), rng))
        (place / "config.json").write_bytes(config)
        groups = group([read_result(place)])
        scores_table(groups), beside_the_report(groups), confusion_numbers(groups[0].first.summary["test"]["confusion"])

    sets = indexed_sets(folder / "sets")

    def index(rng: random.Random, place: Path) -> None:
        damaged_index(sets, rng, place)

    cases = [checkpoint, state, image, config_file, metrics, summary, records, archive, index, shard]
    cases += folder_cases(folder, [*states, config, log])
    return {case.__name__: case for case in cases}


def records(rng: random.Random, place: Path) -> None:
    """CIFAR's loose files, a small set in the place of the official one."""
    for name, data in SMALL.items():
        (place / name).write_bytes(damage(data, rng, [data]) if rng.random() < 0.3 else put_label(data, rng))
    publish(b"")
    load("cifar10", place, download=False)


def archive(rng: random.Random, place: Path) -> None:
    """CIFAR's archive, the damage behind its checksum."""
    data = damage(ARCHIVE if rng.random() < 0.5 else PLAIN, rng, [ARCHIVE])
    publish(data)
    (place / "cifar-10-binary.tar.gz").write_bytes(data)
    load("cifar10", place, download=False)


def small_run(folder: Path) -> Any:
    """A run after a short training on digits, whose files are in `folder`."""
    config = TrainConfig(arch="baseline", dataset="digits", epochs=2, batch_size=512, loss="adaface")
    run = build_run(dataclasses.replace(config, augment="none"), load("digits"))
    with open_run(folder, resume=False, overwrite=False) as files, StopRequest() as stop:
        files.write_config(run.config, {})
        train(run, files, Watcher(), stop)
    return run


def make_pictures() -> list[bytes]:
    """One picture in every format and mode that is read."""
    colours = Image.effect_noise((24, 16), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "P", "L", "LA", "1", "I;16"), "JPEG": ("RGB", "L", "CMYK"), "GIF": ("P",), "BMP": ("RGB", "P"),
        "TIFF": ("RGB", "I;16", "CMYK", "1"), "WEBP": ("RGB", "RGBA"), "PPM": ("RGB", "L", "I;16"),
    }.items():  # fmt: skip
        for mode in modes:
            buffer = io.BytesIO()
            picture = colours.convert("L").convert(mode) if mode in ("I;16", "LA") else colours.convert(mode)
            picture.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
            found.append(buffer.getvalue())
    for kind, options in {
        "JPEG": {"progressive": True},
        "TIFF": {"compression": "tiff_lzw"},
        "GIF": {"save_all": True},
    }.items():
        buffer = io.BytesIO()
        more = {"append_images": [colours.rotate(90)]} if kind == "GIF" else {}
        colours.save(buffer, kind, **options, **more)
        found.append(buffer.getvalue())
    clear, notes = Image.new("RGBA", colours.size), PngInfo()
    notes.add_text("key", "text" * 600_000, zip=True)  # more than Pillow reads: it goes on without
    for kind in ("PNG", "GIF", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        more = {"pnginfo": notes} if kind == "PNG" else {}
        clear.save(buffer, kind, save_all=True, append_images=[colours.convert("RGBA")], **more)
        found.append(buffer.getvalue())
    return found


SMALL = {
    name: bytes([index]) + bytes(range(256)) * 12 for index, name in enumerate(cifar.SETS["cifar10"].archive.files)
}


def put_label(data: bytes, rng: random.Random) -> bytes:
    return bytes([rng.choice((0, 3, 9, 9, 9, 10, 255))]) + data[1:]


def pack(mode: str) -> bytes:
    """The small files as the archive that holds them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in SMALL.items():
            member = tarfile.TarInfo(f"{cifar.SETS['cifar10'].archive.folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


ARCHIVE, PLAIN = pack("w:gz"), pack("w")


def publish(data: bytes) -> None:
    """Makes `data` the official archive, so that the damage lies behind the checksum, where it would do harm."""
    old = cifar.SETS["cifar10"]
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    files = {name: len(content) for name, content in SMALL.items()}
    new = Archive(url=old.archive.url, size=len(data), folder=old.archive.folder, files=files, **sums)
    cifar.SETS["cifar10"] = dataclasses.replace(old, archive=new)
