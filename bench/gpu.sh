#!/usr/bin/env bash
# What needs a GPU, in one command, also on a machine without a network: the tests marked gpu, then the update at the
# real size. Each prints as it goes and leaves a file in OUT (default: runs/gpu).
#
#     bench/gpu.sh [tests] [update]      both by default; wheels/ (make gpu-wheels) is installed first where it exists
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH=$PWD/src:$PWD/bench PYTHONUNBUFFERED=1
if [ -d wheels ]; then
    packages=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$packages" wheels/*.whl
    export PYTHONPATH=$PYTHONPATH:$packages
fi
{ nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no GPU"; } 2>&1 | tee "$out/machine.txt"
failed=0
[ $# -gt 0 ] || set -- tests update
for part in "$@"; do
    case $part in
        tests) "$python" -m pytest -q -m gpu tests/test_gpu.py -p no:cacheprovider 2>&1 | tee "$out/tests.txt" || failed=1 ;;
        update) "$python" bench/gpu.py 2>&1 | tee "$out/update.txt" || failed=1 ;;
        *) echo "unknown part $part: tests or update" >&2; exit 2 ;;
    esac
done
exit $failed
