#!/usr/bin/env bash
# openvino 2026.4.1, openvino-telemetry 2025.2.0, numpy 2.3.5, CPython 3.11 on Linux. Seen on 29 November 2026.
#
# Guess: `import openvino` loads an inference engine and does nothing else; what reports use is the converter's command
# line, and that asks first.
#
# The import itself, by any program, writes a client's id into a folder in the home folder, counts uses in a second file,
# and posts an event with the id to an analytics service from a forked process, without a question and without output.
# It does not where CI=true is set, or the package openvino-telemetry cannot be imported: the engine works without.
#
# The script lets no request out: an audit hook writes down that there is one and stops it.
#
# Output seen:
#   import openvino: 1 request(s) stopped; files in the home folder: intel/openvino_ga_cid intel/stats
#   without openvino-telemetry: 0 request(s) stopped; files in the home folder: none
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.3.5 openvino==2026.4.1 openvino-telemetry==2025.2.0
cat > "$folder/check.py" <<'PY'
import sys
import time

requests, without = sys.argv[1], sys.argv[2] == "without"


def stop(event, arguments):
    if event == "urllib.Request":
        with open(requests, "a") as file:
            file.write("request\n")
        raise RuntimeError("no request leaves this process")


sys.addaudithook(stop)
if without:
    sys.modules["openvino_telemetry"] = None
import openvino

time.sleep(3)  # the request is made in the background
assert openvino.Core().available_devices
PY
for how in with without; do
    mkdir "$folder/$how"
    touch "$folder/$how.requests"
    env -u CI -u TF_BUILD -u JENKINS_URL HOME="$folder/$how" \
        "$folder/env/bin/python" "$folder/check.py" "$folder/$how.requests" "$how"
    count=$(grep -c request "$folder/$how.requests" || true)
    files=$(cd "$folder/$how" && find . -type f | sed 's|^\./||' | sort | tr '\n' ' ')
    what=$([ "$how" = with ] && echo "import openvino" || echo "without openvino-telemetry")
    echo "$what: $count request(s) stopped; files in the home folder: ${files:-none}"
done
[ "$(grep -c request "$folder/with.requests")" -ge 1 ]
[ -f "$folder/with/intel/openvino_ga_cid" ]
[ ! -s "$folder/without.requests" ]
[ ! -e "$folder/without/intel" ]
