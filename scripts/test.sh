#!/usr/bin/env bash
# Sets up, then runs the tests. Arguments go to pytest: bash scripts/test.sh -k losses
#
# CIFARNET_TEST_DATA=DIR (a folder that holds cifar-10-batches-bin/) runs the tests on real CIFAR images too.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -q "$@"
