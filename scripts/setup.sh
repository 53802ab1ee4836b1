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

echo "installing torch and torchvision (a matching pair; 2 GB or more to download)" >&2
.venv/bin/python -m pip install --quiet --upgrade pip 'setuptools>=77' ninja build
.venv/bin/python -m pip install --quiet torch torchvision
echo "installing cifarnet" >&2
# --no-build-isolation: the extension is compiled against the torch that is installed here.
.venv/bin/python -m pip install --quiet --no-build-isolation --editable '.[test]'
# An editable install is not compiled to bytecode; where Python may write none, each start would do it anew.
.venv/bin/python -m compileall -q cifarnet
.venv/bin/cifarnet --version >&2
echo "$wanted" >"$stamp"
