#!/bin/sh
# Stands in for nvcc and the C++ compiler in a rehearsal (scripts/proof/gpu_build.sh): notes what it is told, makes empty files.
echo "$(basename "$0") $*" >>"$FAKE_LOG"
case "$*" in
  *-dump*) echo 13.3.0 && exit ;;
  *--version*) echo "release $FAKE_CUDA, V$FAKE_CUDA.0" && exit ;;
esac
while [ $# -gt 1 ]; do
  [ "$1" = -o ] && : >"$2"
  shift
done
