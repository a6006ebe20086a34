#!/usr/bin/env bash
# Try and measure everything on this machine's GPU: bash benchmarks/gpu/run.sh [--cpu] [--out FOLDER]; see README.md here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-}
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python || python=python3; }
limit=480
for word in "$@"; do [ "$word" != --cpu ] || limit=300; done
# the runner ends before this; what is here is for a runner that hangs
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec timeout --kill-after=5 "$limit" "$python" -m benchmarks.gpu.runner "$@"
