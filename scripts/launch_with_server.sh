#!/usr/bin/env bash
# launch_with_server.sh S T CONFIG [more options of `gepa-atlas grpo launch`]: vllm on S GPUs, training on T others.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 S T CONFIG [options], for example: $0 1 3 configs/train/atlas_teacher.yaml --export-path traces/runtime.jsonl" >&2
    exit 2
fi
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
[ -x "$VENV/bin/gepa-atlas" ] || bootstrap local,train
server=$1 training=$2 config=$3
shift 3
exec "$VENV/bin/gepa-atlas" grpo launch --vllm-gpus "$server" --processes "$training" --config "$config" "$@"
