#!/usr/bin/env bash
# Makes docs/gallery: four short runs of the baseline CNN (cross-entropy and a margin loss, with 64 and with 3 features),
# then every figure of them. About 10 minutes on 2 cores. Runs that are there already are not trained again.
#
#     bash scripts/study/gallery.sh DATA_DIR [RUNS]     DATA_DIR holds cifar-10-batches-bin/; RUNS: where the runs go
#     DATA_NAME='cifar10 (JPEG copy)' bash scripts/study/gallery.sh …     what the titles call the data
set -euo pipefail
data=$(realpath "${1:?where is the data? bash scripts/study/gallery.sh DATA_DIR [RUNS]}")
cd "$(dirname "$0")/../.."
runs=${2:-runs/gallery}
name=${DATA_NAME:-cifar10}
out=docs/gallery
cifarnet=(.venv/bin/python -m cifarnet)

train() { # name, epochs, options
  local run=$runs/$1 epochs=$2
  shift 2
  [ -f "$run/summary.json" ] && return
  "${cifarnet[@]}" train --data-dir "$data" --arch baseline --augment basic --batch-size 256 --schedule onecycle \
    --lr 3e-3 --epochs "$epochs" --log-grad --out "$run" --overwrite "$@"
}
train ce 10 --loss ce
train adaface 10 --loss adaface --scale 16 --margin 0.2
train ce-3d 10 --loss ce --embed-dim 3
train adaface-3d 20 --loss adaface --scale 16 --margin 0.1 --embed-dim 3 --neck bn --animate # ten classes in 3-d take their time

draw() { "${cifarnet[@]}" visualize "$@" --data-dir "$data"; }
rm -rf "$out"
mkdir -p "$out"
for loss in ce adaface; do
  title="baseline · $loss · $name"
  draw umap "$runs/$loss" --title "$title" --out "$out/umap-$loss.png"
  draw angles "$runs/$loss" --title "$title" --out "$out/angles-$loss.png"
  draw sphere "$runs/$loss-3d" --title "$title" --out "$out/sphere-$loss.png"
done
title="baseline · adaface · $name"
draw confusion "$runs/adaface" --title "$title" --out "$out/confusion.png"
draw grid "$runs/adaface" --title "$title" --out "$out/grid.png"
"${cifarnet[@]}" visualize curves "$runs/ce" "$runs/adaface" --title "baseline · $name" --out "$out/curves.png"
"${cifarnet[@]}" complexity --all --figure "$out/complexity.png" >/dev/null

# Feature maps, class maps and their deletion of a test image, with the weights in the package.
.venv/bin/python - "$data" "$runs" <<'PY'
import sys

from PIL import Image

from cifarnet.data import load

test = load("cifar10", sys.argv[1]).test
index = int((test.labels == 7).nonzero()[4])  # a horse
Image.fromarray(test.images[index].permute(1, 2, 0).numpy()).save(f"{sys.argv[2]}/horse.png")
PY
weights=cifarnet/weights/baseline-plus.safetensors
"${cifarnet[@]}" featuremaps "$runs/horse.png" --run "$weights" --grad-cam --layer-cam --deletion \
  --title "baseline · ce · $name" --out "$runs/featuremaps" --overwrite
cp "$runs/featuremaps/horse/overview.png" "$out/featuremaps.png"
cp "$runs/featuremaps/horse/relu1.png" "$out/featuremaps-relu1.png"
cp "$runs"/featuremaps/horse/{grad-cam,layer-cam,deletion}.png "$out"
cp "$runs/adaface-3d/sphere.gif" "$out/sphere.gif"

# Smaller, for a web page: 256 colours are enough for all but photographs.
.venv/bin/python - "$out" <<'PY'
import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    image = Image.open(path).convert("RGB")
    image = image.resize((image.width * 7 // 10, image.height * 7 // 10), Image.Resampling.LANCZOS)
    (image if path.stem.endswith("-cam") else image.quantize(256)).save(path, optimize=True)
PY
du -ch "$out"/*
