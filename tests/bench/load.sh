#!/usr/bin/env bash
# Load test of the server: N devices over TLS in one process, the CNN's layout, no training.
# Prints the server's peak memory, rounds per second and bytes on the wire.
#   tests/bench/load.sh [DEVICES] [ROUNDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
devices=${1:-500}
rounds=${2:-3}
covey=${COVEY:-build/release/bin/covey}
out=$(mktemp -d -t covey-load.XXXXXX)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$out"' EXIT
ulimit -n "$(ulimit -Hn)"

"$covey" provision create --out "$out/kits" --devices "$devices" --address 127.0.0.1:1 >/dev/null
COVEY_DATA="$out/none" "$covey" server tests/bench/load.toml --set partition.clients="$devices" \
  --set run.num-rounds="$rounds" --kit "$out/kits/server" --state "$out/state" --listen 127.0.0.1:0 \
  --json >"$out/server.json" 2>"$out/server.log" &
server=$!
for _ in $(seq 100); do
  port=$(sed -n 's/.*listening port=\([0-9]*\).*/\1/p' "$out/server.log")
  [ -z "$port" ] || break
  sleep 0.1
done
idle_kib=$(awk '/VmRSS/ {print $2}' "/proc/$server/status")
"$covey" client --devices "$devices" --kits "$out/kits" --server "127.0.0.1:$port" --echo --json \
  >"$out/client.json" 2>"$out/client.log" || { tail -n 5 "$out/client.log" >&2; exit 1; }
wait "$server" || { tail -n 5 "$out/server.log" >&2; exit 1; }
server=
grep 'round committed' "$out/server.log"
echo "server before the first device: $((idle_kib / 1024)) MiB"
echo "server: $(tail -n 1 "$out/server.json")"
echo "devices: $(tail -n 1 "$out/client.json")"
