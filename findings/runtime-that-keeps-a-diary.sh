#!/usr/bin/env bash
# onnxruntime 1.31.1 (the wheel of its own makers), numpy 2.3.5, CPython 3.11 on Linux. Seen on 30 November 2026.
#
# Guess: telemetry of ONNX Runtime is a matter of Windows, where the system collects it and asks its user; a wheel for
# Linux computes, and writes nothing.
#
# `import onnxruntime` opens a database in the home folder and notes an event there, with the interpreter's path, the
# system and an id that stays; a file in the temporary folder tells sessions apart. A thread is started that sends what has
# been noted. On a device with a read-only or small disk that is what grows. `disable_telemetry_events()` comes too late:
# the import has noted its event by then. ORT_DISABLE_TELEMETRY=1 before the import prevents all of it.
#
# The script uses no model and ends at once; nothing is sent by then, and nothing about this machine is printed.
#
# Output seen:
#   import: home folder: deviceid onnxruntime.db …; temporary folder: .ses; events noted: 1 or more
#   import, then disable_telemetry_events(): events noted: 1 or more
#   ORT_DISABLE_TELEMETRY=1: nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 onnxruntime==1.31.1
cat > "$folder/check.py" <<'PY'
import sys

import onnxruntime

if sys.argv[1] == "after":
    onnxruntime.disable_telemetry_events()
PY
cat > "$folder/events.py" <<'PY'
import pathlib
import sqlite3
import sys

found = list(pathlib.Path(sys.argv[1]).rglob("onnxruntime.db"))
print(sqlite3.connect(found[0]).execute("select count(*) from events").fetchone()[0] if found else 0)
PY
for how in plain after never; do
    mkdir "$folder/$how" "$folder/$how.tmp"
    variable=$([ "$how" = never ] && echo 1 || echo 0)
    env -u XDG_CACHE_HOME HOME="$folder/$how" TMPDIR="$folder/$how.tmp" ORT_DISABLE_TELEMETRY="$variable" \
        "$folder/env/bin/python" "$folder/check.py" "$how"
    events=$(python3 "$folder/events.py" "$folder/$how")
    home=$(find "$folder/$how" -type f -printf '%f\n' | sort | tr '\n' ' ')
    temporary=$(find "$folder/$how.tmp" -type f -printf '%f\n' | sort | tr '\n' ' ')
    echo "$how: home folder: ${home:-nothing}; temporary folder: ${temporary:-nothing}; events noted: $events"
    case $how in
        never) [ -z "$home$temporary" ] ;;
        *) [ "$events" -ge 1 ] && [ "${temporary% }" = .ses ] ;;
    esac
done
