#!/bin/bash
# usage: setup.sh DIR
# Makes what the tests marked `engine` need: DIR/venv with the real SGLang server on a CPU build of PyTorch,
# and DIR/model, a tiny random model. Needs Python 3.11 with pip. Called again with nothing changed it
# returns at once. Tests find the folder through the environment variable AUTOTUNE_SGLANG_CPU.
set -euo pipefail
folder=${1:?usage: setup.sh DIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

stamp=$(cat "$here/setup.sh" "$here"/requirements*.txt "$here/make_model.py" "$here/cpu.py" \
  "$here/shims/sitecustomize.py" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/.stamp" 2>/dev/null || true)" = "$stamp" ]; then
  echo "setup: up to date"
  exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "setup: Python 3.11 is required")'

step() {
  echo "setup: $1"
  shift
  "$@" >"$folder/setup.log" 2>&1 || { tail -n 40 "$folder/setup.log" >&2; return 1; }
}

rm -f "$folder/.stamp"
step "virtual environment" "$python" -m venv --clear "$folder/venv"
pip=("$folder/venv/bin/python" -m pip install -q --no-input --disable-pip-version-check --no-compile)
step "torch" "${pip[@]}" torch==2.13.0
# SGLang declares requirements that only a GPU needs, so it is installed without them; those that it
# imports on a CPU follow.
step "sglang" "${pip[@]}" --no-deps -r "$here/requirements-nodeps.txt"
step "its requirements" "${pip[@]}" -r "$here/requirements.txt"
# Importing once what a server imports writes the bytecode, so that no start of a server compiles.
step "bytecode" env AUTOTUNE_SGLANG_CPU="$folder" "$python" "$here/cpu.py" import
step "model" "$folder/venv/bin/python" "$here/make_model.py" "$folder/model"
echo "$stamp" >"$folder/.stamp"
