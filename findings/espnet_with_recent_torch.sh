#!/usr/bin/env bash
# espnet 202511 and PyTorch 2.14.1 cannot be installed together: they disagree about setuptools
#
# Guessed:  the newest ESPnet, which asks for torch>=1.11, installs beside any newer PyTorch.
# Seen:     ESPnet wants setuptools<74, PyTorch since 2.13 wants setuptools>=77.0.3 at run time; a
#           resolver finds no set, and pip says so only after backtracking.
# Matters:  whoever scores word errors with ESPnet stays at PyTorch 2.12 in that environment, with
#           all that is mended since; a project that lists both in one extra cannot move.
# Fails when one of the two has given way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
printf 'espnet==202511\ntorch==2.14.1\n' > "$folder/both.txt"
if "$pip" install --dry-run -r "$folder/both.txt" > "$folder/log" 2>&1; then
  echo 'they install together now'
  exit 1
fi
grep -E 'espnet 202511 depends on setuptools|torch 2.14.1 depends on setuptools' "$folder/log"
grep -q ResolutionImpossible "$folder/log"
