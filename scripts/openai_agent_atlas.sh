#!/usr/bin/env bash
# Optimize an agent's prompts:  scripts/openai_agent_atlas.sh [CONFIG] [options of gepa-atlas optimize]
# Without a CONFIG: the quickstart, on the embedded model, with no key and no network after the install.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

CONFIG="$ROOT/configs/examples/quickstart.yaml"
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  CONFIG="$1"
  shift
  # From another directory, a path as the documentation writes it still finds the file in the clone.
  if [ ! -e "$CONFIG" ] && [ -e "$ROOT/$CONFIG" ]; then CONFIG="$ROOT/$CONFIG"; fi
fi

bootstrap local
exec "$VENV/bin/gepa-atlas" optimize "$CONFIG" "$@"
