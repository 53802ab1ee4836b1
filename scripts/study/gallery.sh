#!/usr/bin/env bash
# Makes docs/gallery: three ResNet-18 (cross-entropy, AdaFace, ArcFace), two small networks of three features, then every
# figure of them. About two hours of a core with AMX. A run that was stopped goes on; one that is finished is not trained again.
#
#     bash scripts/study/gallery.sh DATA_DIR [RUNS]     DATA_DIR holds cifar-10-batches-bin/; RUNS: where the runs go
set -euo pipefail
data=$(realpath "${1:?where is the data? bash scripts/study/gallery.sh DATA_DIR [RUNS]}")
runs=$(realpath -m "${2:-runs/gallery}")
cd "$(dirname "$0")/../.."
out=$PWD/docs/gallery
weights=$PWD/cifarnet/weights/baseline-plus.safetensors
cifarnet=("$PWD/.venv/bin/python" -m cifarnet)

train() { # name, options
  local run=$runs/$1
  shift
  [ -f "$run/summary.json" ] && return
  if [ -f "$run/state.safetensors" ]; then
    "${cifarnet[@]}" train --resume --out "$run"
  else
    "${cifarnet[@]}" train --data-dir "$data" --seed 17 --log-grad --out "$run" "$@"
  fi
}
for loss in ce adaface arcface; do
  margin=(--scale auto --margin auto)
  [ $loss = ce ] && margin=()
  train $loss --recipe quick --arch resnet18 --val-fraction 0.1 --loss $loss "${margin[@]}"
done
small=(--arch baseline --augment basic --batch-size 256 --schedule onecycle --lr 3e-3 --embed-dim 3)
train ce-3d "${small[@]}" --epochs 10 --loss ce
train adaface-3d "${small[@]}" --epochs 20 --loss adaface --scale 16 --margin 0.1 --neck bn --animate # ten classes take their time

rm -rf "$out"
mkdir -p "$out"
cd "$runs" # so that the pictures name the runs by their folders' names alone
draw() { "${cifarnet[@]}" visualize "$@" --out "$out/$name.png" --overwrite; }
three=(ce adaface arcface)
name=umap draw umap "${three[@]}" --data-dir "$data"
name=angles draw angles "${three[@]}" --data-dir "$data"
name=confusion draw confusion "${three[@]}" --data-dir "$data"
name=calibration draw calibration "${three[@]}" --data-dir "$data"
name=curves draw curves "${three[@]}"
name=sphere draw sphere ce-3d adaface-3d --data-dir "$data"
name=grid draw grid adaface --data-dir "$data"
name=samples draw samples adaface --data-dir "$data"
name=network draw network --arch resnet18
name=margins draw margins
"${cifarnet[@]}" complexity --all --figure "$out/complexity.png" --overwrite >/dev/null

# Feature maps, class maps and their deletion of a test image, with the weights in the package.
"${cifarnet[0]}" - "$data" <<'PY'
import sys

from PIL import Image

from cifarnet.data import load

test = load("cifar10", sys.argv[1]).test
index = int((test.labels == 7).nonzero()[4])  # a horse
Image.fromarray(test.images[index].permute(1, 2, 0).numpy()).save("horse.png")
PY
"${cifarnet[@]}" featuremaps horse.png --run "$weights" --grad-cam --layer-cam --deletion --out featuremaps --overwrite
cp "featuremaps/horse/overview.png" "$out/featuremaps.png"
cp "featuremaps/horse/relu1.png" "$out/featuremaps-relu1.png"
cp featuremaps/horse/{grad-cam,layer-cam,deletion}.png "$out"
cp adaface-3d/sphere.gif "$out/sphere.gif"

# Smaller, for a web page: 256 colours are enough for all but photographs.
"${cifarnet[0]}" - "$out" <<'PY'
import sys
from pathlib import Path

from PIL import Image

for path in Path(sys.argv[1]).glob("*.png"):
    image = Image.open(path).convert("RGB")
    image = image.resize((image.width * 7 // 10, image.height * 7 // 10), Image.Resampling.LANCZOS)
    (image if path.stem.endswith("-cam") else image.quantize(256)).save(path, optimize=True)
PY
du -ch "$out"/*
