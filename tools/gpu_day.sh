#!/usr/bin/env bash
# Everything that a first look at a GPU needs, in one command and without a network: see docs/howto/first_gpu.md.
#
#   bash tools/gpu_day.sh            install, test, sanitize, time the kernels and the loop; a summary last
#   bash tools/gpu_day.sh profile    profile the kernels with ncu instead
#   bash tools/gpu_day.sh install    install only
#   bash tools/gpu_day.sh --help     the options
#
# PYTHON names the interpreter that has torch (default python3), OUT the folder of results (default build/gpu-day).
set -euo pipefail
here=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
case $python in */*) python=$(realpath -s "$python") ;; esac
if ! command -v "$python" > /dev/null; then
  echo "gpu_day: there is no $python; set PYTHON to an interpreter that has torch" >&2
  exit 2
fi
cd "$root"
exec env GPU_DAY_FROM="$here" "$python" -m tools.gpu_day "$@"
