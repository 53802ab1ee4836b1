#!/usr/bin/env bash
# Makes .venv with everything cifarnet needs. Run again, it does only what has changed since.
#
#     PYTHON=python3.12 bash scripts/setup.sh     to choose the interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$candidate" && return
  done
  echo "error: python: 3.11 or newer is not on the PATH; install it, or name it with PYTHON=..." >&2
  exit 2
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  echo "making .venv with $("$python" --version)" >&2
  rm -rf .venv
  "$python" -m venv .venv || {
    echo "error: .venv: could not be made; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 2
  }
fi

# The build and the dependencies follow from these files; the stamp says what was installed from.
wanted=$(cat pyproject.toml setup.py scripts/setup.sh csrc/* 2>/dev/null | cksum)
stamp=.venv/cifarnet.stamp
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/cifarnet --version >/dev/null 2>&1; then
  echo "setup: everything is there" >&2
  exit 0
fi

# Bytecode is made at the end, on all cores; pip would make it on one.
install() { .venv/bin/python -m pip install --quiet --no-compile "$@"; }
echo "installing torch and torchvision (a matching pair; 2 GB or more to download)" >&2
install --upgrade pip 'setuptools>=77' ninja build
install torch torchvision
echo "installing cifarnet" >&2
# The extension is compiled, against the torch that is installed here, while pip fetches the rest.
mkdir -p build
set -m # a process group for the build: its compilers end with it, or they would write into the folder of the next one
.venv/bin/python setup.py build_ext --inplace >build/setup.log 2>&1 </dev/null &
building=$!
set +m
trap 'kill -- -"$building" 2>/dev/null || true' EXIT
CIFARNET_BUILD=none install --no-build-isolation --editable '.[test]'
wait "$building" || { tail -n 30 build/setup.log >&2 && exit 1; }
trap - EXIT
grep '^cifarnet: ' build/setup.log >&2 || true
# Where Python may write no bytecode, each start would make it anew. Packages' own tests are left out;
# some packages hold files that are none of this Python's.
.venv/bin/python -m compileall -qq -j 0 -x '/site-packages/.*/tests/' .venv/lib cifarnet || true
.venv/bin/cifarnet --version >&2
echo "$wanted" >"$stamp"
