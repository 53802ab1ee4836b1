#!/usr/bin/env python3
"""The deletion score of Grad-CAM, LayerCAM, random orders and random maps, mean over test images and their predicted classes.

    python scripts/study/deletion.py RUN [--data-dir DIR] [--images 200]

RUN is a checkpoint. Prints a row a map: mean area, its standard error, the share of images where it is below that of random maps.
"""

import argparse
import math
import sys
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).parents[2]))

from cifarnet.analysis.cam import CAMS, class_map, upsample
from cifarnet.analysis.deletion import Eraser
from cifarnet.analysis.features import layers_with_places
from cifarnet.data import load
from cifarnet.data.images.normalize import normalize
from cifarnet.models import find_arch
from cifarnet.models.checkpoint import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    model, info = load_model(options.run)
    size = info.config.image_size
    layer = layers_with_places(model, size, find_arch(info.config.arch).feature_layers)[-1]
    images = load(info.config.dataset, options.data_dir).test.images[: options.images]
    areas: dict[str, list[float]] = {name: [] for name in (*CAMS, "random pixels", "random maps")}
    for image in images:
        pixels = normalize(image, info.mean, info.std)
        target = int(model(pixels[None]).argmax())
        maps = {name: class_map(model, pixels, target, layer, name) for name in CAMS}
        eraser = Eraser(model, pixels, maps["grad-cam"].shape, info.calibration)
        for name, heat in maps.items():
            found = eraser.score(upsample(heat, size), target)
            areas[name].append(found.area)
        areas["random pixels"].append(fmean(found.areas(found.random)))
        areas["random maps"].append(fmean(found.areas(found.random_maps)))
    for name, values in areas.items():
        below = fmean(value < other for value, other in zip(values, areas["random maps"], strict=True))
        error = stdev(values) / math.sqrt(len(values))
        print(f"{CAMS.get(name, name):13}  {fmean(values):.3f} ± {error:.3f}  below random maps: {100 * below:.0f}%")


if __name__ == "__main__":
    main()
