#!/usr/bin/env bash
# ray 2.60.0, CPython 3.11 on Linux. Seen on 30 November 2026.
#
# Guess: a Ray cluster asks for a token if RAY_AUTH_MODE says so, and a file with a token in the home folder only says
# which one. So on one machine, in one home folder, whoever can start a cluster can connect to it.
#
# `ray start` turns tokens on where `~/.ray/auth_token` is, without being asked to; `ray.init(address=…)`, by the same user
# with the same file, does not, and is refused. The error says "Failed to connect", nothing of a token. With
# RAY_AUTH_MODE=token it connects. Without the file both do without, and it connects as well.
# What it means: on a machine where somebody has once made a token (a first `ray.init` with RAY_AUTH_MODE=token makes one),
# scripts that used to connect no longer do.
#
# Output seen:
#   no file: connected
#   a file: ConnectionError: Failed to connect to Ray cluster
#   a file, RAY_AUTH_MODE=token: connected
set -euo pipefail
folder=$(mktemp -d)
heads=()
trap 'for head in "${heads[@]}"; do kill "$head" 2>/dev/null || true; wait "$head" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet ray==2.60.0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH
export RAY_USAGE_STATS_ENABLED=0
cat > "$folder/connect.py" <<'PY'
import logging
import sys

import ray

try:
    ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
except ConnectionError as error:
    print(f"ConnectionError: {' '.join(str(error).split())[:32]}")
else:
    print("connected")
PY
head() { # NAME PORT: a cluster of one node, whose files lie in the folder and which listens on this machine alone
    mkdir -p "$folder/$1"
    HOME="$folder/home" "$folder/env/bin/ray" start --head --block --port="$2" --node-ip-address=127.0.0.1 --num-cpus=1 \
        --include-dashboard=false --disable-usage-stats --temp-dir="$folder/$1" > "$folder/$1.log" 2>&1 &
    heads+=($!)
    for _ in $(seq 120); do
        grep -q "To connect to this Ray cluster\|Ray runtime started" "$folder/$1.log" && return 0
        sleep 0.5
    done
    cat "$folder/$1.log"
    return 1
}
connect() { # PORT: what a driver in the same home folder prints
    HOME="$folder/home" timeout 100 "$folder/env/bin/python" "$folder/connect.py" "127.0.0.1:$1" 2>/dev/null
}
mkdir -p "$folder/home"
head a 26379
first=$(connect 26379)
kill "${heads[0]}"
wait "${heads[0]}" 2>/dev/null || true
mkdir -p "$folder/home/.ray"
(umask 077; python3 -c "import secrets; print(secrets.token_hex(32), end='')" > "$folder/home/.ray/auth_token")
head b 26380
second=$(connect 26380)
third=$(RAY_AUTH_MODE=token connect 26380)
printf 'no file: %s\na file: %s\na file, RAY_AUTH_MODE=token: %s\n' "$first" "$second" "$third"
[ "$first" = connected ]
[ "${second%%:*}" = ConnectionError ]
[ "$third" = connected ]
