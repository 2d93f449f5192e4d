#!/usr/bin/env bash
# A TLS server and fifty devices train MNIST under secure aggregation while one in ten fails in each
# round; then the same without secure aggregation, and the simulator on the same run file: the model over
# TLS is the simulator's, bit for bit, and as accurate as the plain one.
#
#   examples/09_secure_aggregation/run.sh [--data DIR] [--out DIR] [--set key=value ...] [RUN-FILE]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

data=${COVEY_DATA:-}
out=
overrides=()
run_file=examples/09_secure_aggregation/mnist.toml
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2; shift ;;
    --out) out=$2; shift ;;
    --set) overrides+=(--set "$2"); shift ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) run_file=$1 ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
[ -x "$covey" ] || { echo "no $covey: run scripts/quickstart first, or set COVEY" >&2; exit 2; }
out=${out:-$(mktemp -d -t covey-secure.XXXXXX)}
mkdir -p "$out"
export COVEY_DATA=$data
devices=50
per_process=10

pids=()
stop_all() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop_all EXIT

echo "== certificates and identities for $devices devices, in $out/kits"
"$covey" provision create --out "$out/kits" --devices "$devices" --address "127.0.0.1:1" >"$out/provision.log"

echo "== server and $((devices / per_process)) processes of $per_process devices, which fail as [fleet] says"
"$covey" server "$run_file" "${overrides[@]}" --kit "$out/kits/server" --state "$out/server" \
  --listen 127.0.0.1:0 --json >"$out/server.json" 2>"$out/server.log" &
server=$!
pids+=("$server")
address=
for _ in $(seq 300); do
  address=$(sed -n 's/.*listening port=\([0-9]*\).*/127.0.0.1:\1/p' "$out/server.log" | head -n 1)
  [ -n "$address" ] && break
  sleep 0.1
done
[ -n "$address" ] || { echo "the server does not listen; see $out/server.log" >&2; exit 1; }
for first in $(seq 0 "$per_process" $((devices - 1))); do
  "$covey" client "$run_file" "${overrides[@]}" --kits "$out/kits" --devices "$per_process" \
    --first-device "$first" --server "$address" --drop-out --require-secure-aggregation honest-but-curious \
    --json >"$out/client-$first.json" 2>"$out/client-$first.log" &
  pids+=("$!")
done
wait "$server" || { echo "the server failed; see $out/server.log" >&2; exit 1; }
# Devices that failed in the last round will look for the server for ever: it is over for them, too.
sleep 1
for pid in "${pids[@]}"; do
  [ "$pid" = "$server" ] && continue
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || { echo "a client failed; see $out" >&2; exit 1; }
done
pids=()

echo "== the simulator: the same run file, and a plain one without drop-outs"
"$covey" simulate "$run_file" "${overrides[@]}" --out "$out/simulated" --quiet --json >"$out/simulated.json"
sed '/^\[secure-aggregation\]/,/^$/d; /^\[fleet\]/,$d' "$run_file" >"$out/plain.toml"
plain=()  # what was overridden of the run itself
for ((i = 1; i < ${#overrides[@]}; i += 2)); do
  case ${overrides[i]} in secure-aggregation.*|fleet.*) ;; *) plain+=(--set "${overrides[i]}") ;; esac
done
"$covey" simulate "$out/plain.toml" "${plain[@]}" --out "$out/plain" --quiet --json >"$out/plain.json"

value() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$2" | tail -n 1; }
deployed=$(value model_sha256 "$out/server.json")
simulated=$(value model_sha256 "$out/simulated.json")
echo "over TLS   accuracy $(value accuracy "$out/server.json")  model $deployed"
echo "simulated  accuracy $(value accuracy "$out/simulated.json")  model $simulated"
echo "plain      accuracy $(value accuracy "$out/plain.json")"
[ -n "$deployed" ] && [ "$deployed" = "$simulated" ] && echo "the same model, bit for bit" ||
  { echo "the models differ" >&2; exit 1; }
echo "logs and results are in $out"
