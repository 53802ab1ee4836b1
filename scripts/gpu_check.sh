#!/usr/bin/env bash
# Everything that needs a GPU, in three calls, each safe alone on a bare machine. Needs no network and installs nothing.
#
#     bash scripts/gpu_check.sh 1|2|3 OUT [--data DIR]... [--seconds S] [--rehearse]
#
#     1  8 minutes  the kernels: their tests, compute-sanitizer, the head's speed at all shapes, a profile, its peers
#     2  8 minutes  training: the loop's speed, the seconds that the fast recipes take to their accuracies, with --cuda-graph too
#     3  9 minutes  the report's ce and margins on ResNet-18; given an OUT that holds an earlier reproduce.json, it goes on
#
# OUT, a folder for each call, gets log.txt, summary.json (anew after every step), up to 5 JSON files and logs.tar.gz. A step
# that fails is named in summary.json, the others are still done, and the exit code is 1.
#
# --data DIR    holds cifar-10-batches-bin/, or CIFAR-10 packed (scripts/proof/gpu_data.py); twice, where it came in two parts
# --seconds S   ends sooner than the call's own minutes: the last steps are cut short or left out
# --rehearse    every step on the CPU with small sizes: whether each command runs and OUT keeps its limits
# PYTHON        with torch >= 2.11 (default python3)        AIRBENCH   a public airbench94_muon.py, to be run beside call 2
set -uo pipefail
usage="usage: bash scripts/gpu_check.sh 1|2|3 OUT [--data DIR]... [--seconds S] [--rehearse]"
wrong() { echo "$usage" >&2 && exit 2; }
call=${1:-} out=${2:-} data=() rehearse="" ends=""
[[ $call =~ ^[123]$ && -n $out && $out != -* ]] || wrong
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --data) [ -d "${2:-}" ] || wrong; data+=("$(realpath "$2")"); shift 2 ;;
    --seconds) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong; ends=$2; shift 2 ;;
    --rehearse) rehearse=--rehearse; shift ;;
    *) wrong ;;
  esac
done
python=${PYTHON:-python3} device=cuda
[[ $python != */* ]] || python=$(realpath -s "$python")
[ -z "$rehearse" ] || device=cpu
[ -n "$rehearse" ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "error: GPU: torch of $python sees none; run this where nvidia-smi lists one, or add --rehearse" >&2
  exit 2
}
mkdir -p "$out" && out=$(realpath "$out") || exit 2
[ -z "${AIRBENCH:-}" ] || AIRBENCH=$(realpath "$AIRBENCH")
cd "$(dirname "$0")/.."
work=$(mktemp -d) shm=/dev/shm/cifarnet.$$
trap 'rm -rf "$work" "$shm"' EXIT
mkdir "$work/logs"
export PYTHON="$python" PYTHONPATH="$PWD" PYTHONUNBUFFERED=1
failed=0 data_dir="" ends=${ends:-$((call == 3 ? 530 : 470))} # the call's, less what ending takes

say() { echo "$*" | tee -a "$out/log.txt"; }

# record NAME EXIT MILLISECONDS LIMIT NOTE
record() {
  printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$work/steps.tsv"
  "$python" scripts/proof/gpu_summary.py "$call" "$out" "$work"
  say "   $1: exit $2 after $(($3 / 1000)) s${5:+; $5}"
  [ "$2" -eq 0 ] || { failed=1 && tail -n 15 "$work/logs/$1.log" 2>/dev/null | cut -c 1-300 | tee -a "$out/log.txt"; }
}

now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# step NAME SECONDS COMMAND...: within its time and the call's, its output in a log of its own
step() {
  local name=$1 limit=$2 code=0 from
  shift 2
  ((limit < ends - SECONDS)) || limit=$((ends - SECONDS))
  if ((limit < 5)); then
    record "$name" 124 0 0 "not run: no time is left"
    return
  fi
  say "== $name (at most $limit s)"
  from=$(now)
  timeout -k 5 "$limit" "$@" >"$work/logs/$name.log" 2>&1 || code=$?
  record "$name" $code $(($(now) - from)) "$limit" "$([ $code -ne 124 ] || echo "stopped: its time was up")"
}

# skip NAME WHY
skip() { record "$1" 0 0 0 "skipped: $2"; }

# The data are unpacked while the extension is built, where later calls on this machine find them.
prepare() {
  local from pid="" code=0
  step versions 40 "$python" scripts/proof/gpu_facts.py "$work/facts.json"
  say "$(cat "$work/logs/versions.log")"
  from=$(now)
  if [ ${#data[@]} -gt 0 ]; then
    timeout -k 5 150 "$python" scripts/proof/gpu_data.py "${data[@]}" --to "${TMPDIR:-/tmp}/cifarnet-data-$(id -u)" \
      >"$work/data.out" 2>"$work/logs/data.log" &
    pid=$!
  fi
  step build 150 bash scripts/proof/gpu_build.sh "$(fact arch 9.0)" "$work" $rehearse
  [ -n "$pid" ] || return 0
  wait $pid || code=$?
  { read -r data_dir && read -r words && echo "$words" >"$work/data.txt"; } <"$work/data.out"
  record data $code $(($(now) - from)) 150 "${words:-}"
}

# fact NAME DEFAULT: what the first step found out
fact() {
  "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]] or sys.argv[3])' \
    "$work/facts.json" "$1" "$2" 2>/dev/null || echo "$2"
}

bench() { # NAME SECONDS OPTIONS...: its JSON in OUT
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$python" scripts/bench/head.py --device $device --out "$out/$name.json" "$@"
}

kernels() {
  local tests="cuda or gpu" all=() profiled=1024,512,100000 middle=(--shapes 1024,512,100000 --seconds 2)
  local peers=(--shapes 512,512,1000 512,512,10 --seconds 2) sanitizer tool ours=()
  if [ -n "$rehearse" ]; then
    tests="cpu and few and arcface and value" profiled=16,8,300
    all=(--shapes 16,8,300 16,8,10 --seconds 0) middle=(--shapes 16,8,300 --seconds 0)
    peers=(--shapes 16,8,10 --seconds 0 --compiler aot_eager)
  fi
  step tests 120 "$python" -m pytest --maxfail=10 -q -rs -p no:cacheprovider --hypothesis-profile=no-shrinking -k "$tests" \
    $(ls tests/losses/test_kernels*.py | grep -v -e _build.py -e _cuda.py) tests/losses/test_more_kernels.py tests/losses/test_head_truth.py # those two need no GPU
  sanitizer=$(fact sanitizer "")
  [ -z "$sanitizer" ] || ! "$sanitizer" --help 2>&1 | grep -q -e '--kernel-name ' || ours=(--kernel-name kns=margin)
  for tool in memcheck racecheck; do
    if [ -n "$rehearse" ]; then
      step $tool 50 "$python" scripts/bench/head_step.py 33,70,10 50,40,300
    elif [ -z "$sanitizer" ]; then
      skip $tool "no compute-sanitizer is here"
    else # 9: it found something; another code: it could not run
      PYTORCH_NO_CUDA_MEMORY_CACHING=1 step $tool 50 "$sanitizer" --tool $tool "${ours[@]}" --error-exitcode 9 \
        "$python" scripts/bench/head_step.py --device cuda 33,70,10 50,40,300
    fi
  done
  bench head_bf16 75 --dtype bf16 --only ours triton floor --seconds 1 "${all[@]}"
  bench head_fp32 60 --dtype fp32 --only ours floor --seconds 1 "${all[@]}"
  step profile 40 "$python" scripts/bench/head_step.py --device $device --profile $profiled
  bench eager_bf16 40 --dtype bf16 --only eager others "${middle[@]}"
  bench peers_bf16 130 --dtype bf16 --only ours floor eager compile others "${peers[@]}"
  bench peers_fp32 130 --dtype fp32 --only ours floor eager compile others "${peers[@]}"
}

training() {
  local from=(--dataset digits) seeds=3 loop=(--steps 100 --rounds 3)
  [ -z "$data_dir" ] || from=(--data-dir "$data_dir")
  [ -n "$rehearse" ] || loop+=(${data_dir:+--data-dir "$data_dir"})
  [ -z "$rehearse" ] || { from=(--rehearse) seeds=1 && loop=(--steps 1 --rounds 1 --batch-size 16); }
  step bench_train 80 "$python" scripts/bench/train.py "${loop[@]}" --json "$out/bench_train.json"
  step speed 160 "$python" scripts/study/time_to_accuracy.py "${from[@]}" --only speed --seeds $seeds --json "$out/speed.json"
  step resnet18 100 "$python" scripts/study/time_to_accuracy.py "${from[@]}" --only resnet18 --seeds 1 \
    --json "$out/resnet18.json"
  step graphs 90 "$python" scripts/study/time_to_accuracy.py "${from[@]}" --only resnet18-graph speed-graph --seeds 1 \
    --json "$out/graphs.json"
  if [ -z "${AIRBENCH:-}" ]; then
    skip airbench "AIRBENCH names no file"
  elif [ -z "$data_dir" ]; then
    skip airbench "no data"
  elif [ -n "$rehearse" ]; then
    skip airbench "it needs a GPU"
  else # it would repeat itself for many minutes: a line a run stands in its log
    step airbench 90 bash -c '"$PYTHON" scripts/study/airbench_pixels.py "$1" "$2" && cd "$2" &&
      { timeout -k 5 60 "$PYTHON" "$3" || [ $? -eq 124 ]; }' _ "$data_dir" "$work/airbench" "$AIRBENCH"
  fi
}

reproduction() {
  local limit=$((ends - SECONDS)) options=(--seeds 3 --data-dir "$data_dir") runs=$work
  if [ -z "$rehearse$data_dir" ]; then
    skip reproduce "no data"
    return
  fi
  [ -z "$rehearse" ] || options=(--seeds 1 --rehearse)
  [ ! -w /dev/shm ] || runs=$shm && mkdir -p "$runs" # each epoch writes its state: in memory that takes no time
  step reproduce $limit "$python" scripts/study/reproduce.py --cells quick "${options[@]}" --out "$runs/reproduce" \
    --keep "$out/reproduce.json" --budget "$((limit > 30 ? (limit - 30) / 6 : 0))e-1"
  say "$(cat "$runs/reproduce/tables.md" 2>/dev/null)"
  say "runs that are done: $(grep -c '"cell"' "$out/reproduce.json" 2>/dev/null)"
}

say "gpu_check.sh $call $rehearse, $(date -u +%FT%TZ)"
prepare
case $call in 1) kernels ;; 2) training ;; 3) reproduction ;; esac
"$python" scripts/proof/gpu_summary.py "$call" "$out" "$work" --check >"$work/check" || failed=1
say "$(cat "$work/check")"
exit $failed
