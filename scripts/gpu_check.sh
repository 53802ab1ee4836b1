#!/usr/bin/env bash
# Everything that needs a GPU, in one command of under 8 minutes: builds the CUDA kernels for the GPU at hand, runs their
# tests, measures them against their peers, trains ResNet-18 and the speed recipe briefly. Needs no network and installs nothing.
#
#     bash scripts/gpu_check.sh OUT_DIR          PYTHON=python3: with torch >= 2.11 (CUDA), pytest, ninja, nvcc's toolkit
#
# OUT_DIR gets summary.json, a log of each step, bench_fp32.json and bench_bf16.json. Exits 1 where a step failed; the
# others are still done.
set -uo pipefail
out=${1:?"usage: bash scripts/gpu_check.sh OUT_DIR"}
mkdir -p "$out" && out=$(realpath "$out")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
started=$(date +%s)
failed=0
steps=""

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "error: GPU: torch of $python sees none; run this where nvidia-smi lists one" >&2
  exit 2
}
arch=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
export PYTHONPATH="$PWD" TORCH_CUDA_ARCH_LIST="$arch" CIFARNET_BUILD=cuda

# step NAME SECONDS COMMAND...: within its time, its output in NAME.log
step() {
  local name=$1 limit=$2 from=$SECONDS code=0
  shift 2
  echo "== $name (at most $limit s)" >&2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  [ $code -eq 0 ] || { failed=1; tail -n 15 "$out/$name.log" >&2; }
  echo "   exit $code after $((SECONDS - from)) s" >&2
  steps="$steps{\"step\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - from))}, "
}

step build 110 "$python" setup.py build_ext --inplace
step info 20 "$python" -c 'import torch; from cifarnet import kernels
print(torch.__version__, torch.cuda.get_device_name(), kernels.build_info(), kernels.resolve("cuda", "cuda"))'
step tests 80 "$python" -m pytest -q -p no:cacheprovider tests/test_kernels.py tests/test_kernels_shapes.py -k cuda -rs
step bench_fp32 60 "$python" scripts/bench_head.py --device cuda --seconds 4 --most-classes 100000 --out "$out/bench_fp32.json"
step bench_bf16 80 "$python" scripts/bench_head.py --device cuda --dtype bf16 --seconds 4 --out "$out/bench_bf16.json"
# The digits ship with scikit-learn: training needs no download.
for backend in cuda torch; do
  step "train_$backend" 35 "$python" -m cifarnet train --dataset digits --arch resnet18 --loss adaface --epochs 2 \
    --backend "$backend" --device cuda --precision fp32 --out "$out/run_$backend"
done
step time_to_accuracy 60 "$python" scripts/time_to_accuracy.py --dataset digits --only speed --seeds 1 \
  --json "$out/time_to_accuracy.json"
cp "$out/run_cuda/metrics.jsonl" "$out/train_cuda.jsonl" 2>/dev/null
cp "$out/run_torch/metrics.jsonl" "$out/train_torch.jsonl" 2>/dev/null
rm -rf "$out/run_cuda" "$out/run_torch"

printf '{"arch": "%s", "seconds": %d, "steps": [%s]}\n' "$arch" "$(($(date +%s) - started))" "${steps%, }" >"$out/summary.json"
cat "$out/summary.json"
exit $failed
