#!/usr/bin/env bash
# MNN 3.6.1, numpy 2.3.5, CPython 3.11. Seen on 29 November 2026.
#
# Guess: importing the module of MNN's model converter has no effect but the import, as with every other module.
#
# Where the package of a log service is missing, which MNN does not name among its requirements, the module runs
# `pip install -U` for it, with the pip that is first on the PATH: not that of the environment that imports it, unless
# that is activated, so that packages of another environment change. The script puts a `pip` of its own
# on the PATH, which writes down what it is called with and installs nothing.
#
# Output seen:
#   import MNN: pip was not called
#   import MNN.tools.mnnconvert: pip install -U aliyun-log-python-sdk
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 MNN==3.6.1
mkdir "$folder/bin"
printf '#!/bin/sh\necho "pip $*" >> "%s/called"\n' "$folder" > "$folder/bin/pip"
chmod +x "$folder/bin/pip"
touch "$folder/called"
PATH="$folder/bin:$PATH" "$folder/env/bin/python" -c "import MNN" > /dev/null
[ ! -s "$folder/called" ] && echo "import MNN: pip was not called"
PATH="$folder/bin:$PATH" "$folder/env/bin/python" -c "import MNN.tools.mnnconvert" > /dev/null 2>&1 || true
echo "import MNN.tools.mnnconvert: $(cat "$folder/called")"
grep -qx "pip install -U aliyun-log-python-sdk" "$folder/called"
