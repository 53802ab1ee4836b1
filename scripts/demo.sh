#!/usr/bin/env bash
# From nothing to a trained model and its pictures, on scikit-learn's 1,797 handwritten digits (no data to download).
# Leaves demo/: a checkpoint, metrics, figures.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
cifarnet=.venv/bin/cifarnet
say() { printf '\n\033[1m$ cifarnet %s\033[0m\n' "$*"; "$cifarnet" "$@"; }
[ -t 1 ] || say() { printf '\n$ cifarnet %s\n' "$*"; "$cifarnet" "$@"; }

say train --dataset digits --arch baseline --loss adaface --scale 16 --epochs 20 --batch-size 64 \
  --schedule onecycle --lr 3e-3 --augment none --out demo --overwrite
say eval demo
.venv/bin/python - <<'PY'
from PIL import Image
from sklearn.datasets import load_digits

digit = load_digits().images[5] * 255 / 16  # a handwritten five, 8x8 pixels
Image.fromarray(digit.astype("uint8")).resize((96, 96)).save("demo/five.png")
PY
say predict demo/five.png --run demo
echo
echo "demo/ now holds:"
ls demo
