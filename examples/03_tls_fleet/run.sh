#!/usr/bin/env bash
# One TLS server and eight client processes on this machine, then the simulator on the same run file:
# both must end with the same model.
#
#   examples/03_tls_fleet/run.sh [--faults] [--data DIR] [--out DIR] [RUN-FILE]
#
# --faults  kills a client in the middle of a round and starts it again, lets one join late, and kills
#           the server (SIGKILL) once: the run goes on and ends with the same model all the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

faults=no
data=${COVEY_DATA:-}
out=
run_file=examples/03_tls_fleet/run.toml
while [ $# -gt 0 ]; do
  case $1 in
    --faults) faults=yes ;;
    --data) data=$2; shift ;;
    --out) out=$2; shift ;;
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) run_file=$1 ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
[ -x "$covey" ] || { echo "no $covey: run scripts/quickstart first, or set COVEY" >&2; exit 2; }
out=${out:-$(mktemp -d -t covey-fleet.XXXXXX)}
mkdir -p "$out"
devices=8
export COVEY_DATA=$data

pids=()
server=
stop_all() {
  for pid in ${server:+"$server"} "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop_all EXIT

# A port that is free now; the kits name it.
port=$(python3 - <<'PY' 2>/dev/null || echo $((20000 + RANDOM % 20000))
import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])
PY
)
echo "== certificates for a server, an operator and $devices devices, in $out/kits"
"$covey" provision create --out "$out/kits" --devices "$devices" --address "127.0.0.1:$port" >"$out/provision.log"

start_server() {
  "$covey" server "$run_file" --kit "$out/kits/server" --state "$out/server" \
    --listen "127.0.0.1:$port" --json >"$out/server.json" 2>>"$out/server.log" &
  server=$!
}
start_client() {
  local number
  number=$(printf %04d "$1")
  "$covey" client "$run_file" --kit "$out/kits/device-$number" --json \
    >"$out/client-$number.json" 2>>"$out/client-$number.log" &
  pids[$1]=$!
}
# Rounds committed so far, as the server's log tells.
committed() { grep -c 'round committed' "$out/server.log" 2>/dev/null || true; }
wait_for_round() {
  for _ in $(seq 600); do
    [ "$(committed)" -ge "$1" ] && return
    sleep 0.1
  done
  echo "round $1 did not come; see $out/server.log" >&2
  exit 1
}

echo "== one server, $devices clients"
start_server
last=$((devices - 1))
for i in $(seq 0 $((last - 1))); do start_client "$i"; done
if [ $faults = yes ]; then
  sleep 1
  echo "   device $last joins late"
  start_client "$last"
  wait_for_round 1
  echo "   device 3 is killed and comes back"
  kill -9 "${pids[3]}"
  wait "${pids[3]}" 2>/dev/null || true
  start_client 3
  wait_for_round 3
  echo "   the server is killed and started again"
  kill -9 "$server"
  wait "$server" 2>/dev/null || true
  start_server
else
  start_client "$last"
fi
# A short run may be over before anyone can ask.
kill -0 "$server" 2>/dev/null && "$covey" status --kit "$out/kits/operator" 2>/dev/null || true

wait "$server" || { echo "the server failed; see $out/server.log" >&2; exit 1; }
server=
for pid in "${pids[@]}"; do wait "$pid" || { echo "a client failed; see $out" >&2; exit 1; }; done
pids=()

echo "== the simulator on the same run file"
"$covey" simulate "$run_file" --out "$out/simulated" --quiet --json >"$out/simulated.json"
value() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$2" | tail -n 1; }
deployed=$(value model_sha256 "$out/server.json")
simulated=$(value model_sha256 "$out/simulated.json")
echo "rounds $(value rounds "$out/server.json"), accuracy $(value accuracy "$out/server.json")"
echo "deployed  $deployed"
echo "simulated $simulated"
[ -n "$deployed" ] && [ "$deployed" = "$simulated" ] && echo "the same model, bit for bit" ||
  { echo "the models differ" >&2; exit 1; }
echo "logs and results are in $out"
