#!/usr/bin/env bash
# Sets up, then runs the tests. Arguments go to pytest: bash scripts/test.sh -k losses
#
# CIFARNET_TEST_DATA=DIR (a folder that holds cifar-10-batches-bin/) runs the tests on real CIFAR images too.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
# A process a core, one thread each: the tests are small, and threads that wait for each other only slow them down.
export OMP_NUM_THREADS=1
# worksteal: neighbouring tests stay together, so that what a file prepares once is prepared in one process.
exec .venv/bin/python -m pytest -q -n auto --dist worksteal "$@"
