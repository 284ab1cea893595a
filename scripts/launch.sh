#!/usr/bin/env bash
# launch.sh N CONFIG [more options of `gepa-atlas grpo launch`]: a training run in N processes, one a GPU.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 N CONFIG [options], for example: $0 4 configs/train/fsdp2.yaml --export-path runs/my/traces.jsonl" >&2
    exit 2
fi
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
[ -x "$VENV/bin/gepa-atlas" ] || bootstrap local,train
processes=$1 config=$2
shift 2
exec "$VENV/bin/gepa-atlas" grpo launch --processes "$processes" --config "$config" "$@"
