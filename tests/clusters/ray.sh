#!/usr/bin/env bash
# ray.sh FOLDER COMMAND...: run COMMAND beside a Ray of two nodes of two cores each, all of it in FOLDER.
# In namespaces of its own: no network but lo, and every process ends with this one. Exit code 77: it did not start. PYTHON is the one that has Ray.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  exec unshare --net --pid --fork --mount-proc --kill-child -- "$0" --inside "$@"
fi
trap 'exit 77' ERR
shift
folder=$(realpath "$1")
shift
ip link set lo up
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH"
chmod 600 "$RAY_AUTH_TOKEN_PATH"
ray() { "$PYTHON" -m ray.scripts.scripts "$@" >>"$folder/ray.log" 2>&1 || { tail -n 20 "$folder/ray.log" >&2; exit 77; }; }
common=(--node-ip-address 127.0.0.1 --num-cpus 2 --disable-usage-stats --object-store-memory 80000000)
ray start --head --port 6379 --include-dashboard false --temp-dir "$folder/t" --min-worker-port 10002 --max-worker-port 10999 "${common[@]}"
ray start --address 127.0.0.1:6379 --min-worker-port 11002 --max-worker-port 11999 "${common[@]}"
export RAY_ADDRESS=127.0.0.1:6379
exec "$@"
