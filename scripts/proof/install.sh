#!/usr/bin/env bash
# Builds the sdist and the wheel, installs each in an environment of its own, and trains there: about three minutes.
#
#     wheel      made here with the compiled head, which must run
#     sdist      on a machine without a compiler: pure torch must run, and say so once
#     isolation  `pip install .` as pip does it: torch is absent while it builds, so nothing is compiled; said once too
#
# torch is gigabytes: each environment sees, by symbolic links, the packages of PYTHON (default .venv/bin/python) that the
# wheel's own metadata asks for, and theirs. It sees neither this checkout nor any other package, and pip, without an
# index, refuses where one is missing or too old. Only the build of `isolation` asks the index, for setuptools.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH CIFARNET_BACKEND CIFARNET_BUILD
export XDG_CACHE_HOME="$work/cache"
fail() { echo "error: $*" >&2 && exit 1; }

mkdir "$work/source"
git ls-files --cached --others --exclude-standard -z | tar -c --null -T - | tar -x -C "$work/source"
cd "$work"
echo "== sdist and wheel"
"$python" -m build --no-isolation --outdir dist source >build.log 2>&1 || { tail -n 20 build.log >&2 && fail "build"; }
ls dist
"$python" source/scripts/proof/link_packages.py dist/*.whl packages

# install NAME WHAT...: an environment that sees the linked packages, with cifarnet installed in it
install() {
  local name=$1
  shift
  echo "== $name"
  "$python" -m venv --without-pip "$name"
  echo "$work/packages" >"$("$name/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth"
  "$python" -m pip --python "$name/bin/python" install --quiet --disable-pip-version-check "$@"
  "$name/bin/python" -c "import cifarnet; assert cifarnet.__file__.startswith('$work/$name/'), cifarnet.__file__"
}

# check NAME BACKEND TIMES: what doctor and a training say, and how often each says that nothing is compiled
check() {
  local name=$1 backend=$2 times=$3 file
  "$name/bin/cifarnet" doctor >"$name/doctor" 2>&1
  "$name/bin/cifarnet" train --dataset digits --arch baseline --loss arcface --epochs 1 --device cpu --out "$name/run" \
    >"$name/train" 2>&1 || { cat "$name/train" >&2 && fail "$name: train"; }
  grep -A 2 "^margin head" "$name/doctor"
  grep "pip install --no-build-isolation" "$name/train" || true
  for file in doctor train; do
    [ "$(grep -c "pip install --no-build-isolation" "$name/$file")" -eq "$times" ] || { cat "$name/$file" >&2 && fail "$name: $file: not said $times times"; }
  done
  "$name/bin/python" -c "import json; ran = json.load(open('$name/run/summary.json'))['backend']; assert ran == '$backend', ran"
}

install wheel --no-index dist/*.whl
check wheel cpu 0
CC=false CXX=false install sdist --no-index --no-build-isolation dist/*.tar.gz
check sdist torch 1
install isolation "$work/source"
check isolation torch 1
echo "all three install and train"
