#!/usr/bin/env bash
# Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer in a folder of its own and runs the kernels'
# tests with it. Arguments go to pytest. PYTHON chooses the interpreter (default .venv/bin/python).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
command -v "${CXX:-c++}" >/dev/null || { echo "error: ${CXX:-c++}: no C++ compiler is found; install one" >&2; exit 2; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp -r setup.py pyproject.toml csrc tests cifarnet "$root"
touch "$root/README.md"
cd "$root"
rm -f cifarnet/_C*
PATH="$(dirname "$python"):$PATH" CIFARNET_BUILD=cpu CIFARNET_SANITIZE=1 "$python" setup.py -q build_ext --inplace
# Python itself is not instrumented: the runtimes are loaded first, and its own leaks are none of our business.
libraries="$("${CXX:-c++}" -print-file-name=libasan.so) $("${CXX:-c++}" -print-file-name=libubsan.so)"
export LD_PRELOAD="$libraries" ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export PYTHONPATH="$root" OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
"$python" -m pytest -q -p no:cacheprovider tests/losses/test_kernels.py tests/losses/test_kernels_shapes.py \
  tests/losses/test_more_kernels.py tests/losses/test_subcentre_kernels.py "$@"
