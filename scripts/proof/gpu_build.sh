#!/usr/bin/env bash
# Builds the extension for one GPU architecture, unless what is there was built from the same sources for it.
#
#     bash scripts/proof/gpu_build.sh ARCH WORK [--rehearse]       ARCH as 9.0; WORK: a folder to build in
#
# In a folder without pyproject.toml: setuptools older than 77 refuses its `license = "MIT"`, and a GPU machine may have one.
# --rehearse lets scripts/proof/fake_compiler.sh stand in for the compilers, keeps nothing, and checks what nvcc was told.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1 work=$(realpath "$2") rehearse=${3:-}
python=${PYTHON:-python3}
stamp=build/gpu_check.stamp

# state: what the extension depends on, and the extension itself
state() {
  echo "$arch" "$("$python" -c 'import sys, torch; print(sys.version, torch.__version__)')"
  cat setup.py csrc/* | cksum
  cat cifarnet/_C*.so 2>/dev/null | cksum
}

if [ -z "$rehearse" ] && [ -f $stamp ] && [ "$(cat $stamp)" = "$(state)" ]; then
  echo "the extension for $arch is there"
  exit 0
fi
rm -rf "$work/source"
mkdir -p "$work/source/cifarnet"
cp -r setup.py csrc "$work/source"
cp cifarnet/__init__.py "$work/source/cifarnet"
export TORCH_CUDA_ARCH_LIST="$arch" CIFARNET_BUILD=cuda
export MAX_JOBS=${MAX_JOBS:-$(nproc)} # setup.py goes by the memory, of which such a machine may show little at first

if [ -n "$rehearse" ]; then
  mkdir -p "$work/fake/bin"
  for name in nvcc g++; do cp scripts/proof/fake_compiler.sh "$work/fake/bin/$name"; done
  FAKE_CUDA=$("$python" -c 'import torch; print(torch.version.cuda or "")')
  export FAKE_CUDA FAKE_LOG="$work/fake/log" CUDA_HOME="$work/fake" CXX="$work/fake/bin/g++" CC="$work/fake/bin/g++"
  export LDSHARED="$CC -shared" LDCXXSHARED="$CXX -shared"
  [ -n "$FAKE_CUDA" ] || export CIFARNET_BUILD=cpu
fi
(cd "$work/source" && "$python" setup.py build_ext --inplace)
if [ -n "$rehearse" ]; then
  ls "$work"/source/cifarnet/_C*.so
  told=$(grep '^nvcc .*margin_head_cuda\.cu' "$FAKE_LOG" || true)
  echo "nvcc was told: $told"
  [ -z "$FAKE_CUDA" ] || [[ $told == *"-gencode=arch=compute_${arch/./},code=sm_${arch/./}"* ]]
  exit
fi
cp "$work"/source/cifarnet/_C*.so cifarnet/
mkdir -p build
state >$stamp
