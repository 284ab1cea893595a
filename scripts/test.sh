#!/usr/bin/env bash
# The one test command: lint, format, types, tests.  scripts/test.sh [options of pytest]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

bootstrap local,dev
cd "$ROOT"
step "ruff check"
"$PYTHON" -m ruff check --quiet .
step "ruff format --check"
"$PYTHON" -m ruff format --quiet --check .
step "mypy"
"$PYTHON" -m mypy --no-error-summary
step "pytest"
exec "$PYTHON" -m pytest "$@"
