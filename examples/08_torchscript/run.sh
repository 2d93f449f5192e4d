#!/usr/bin/env bash
# A network exported from PyTorch, trained by the simulator and by a TLS server with three client
# processes of ten devices each: both must end with the same model.
#
#   examples/08_torchscript/run.sh --data DIR [--out DIR] [--simulate-only]
#
# Needs python3-torch and a build with libtorch (scripts/install_dependencies --torch).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

data=${COVEY_DATA:-}
out=
fleet=yes
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2; shift ;;
    --out) out=$2; shift ;;
    --simulate-only) fleet=no ;;
    -h|--help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
[ -x "$covey" ] || { echo "no $covey: run scripts/quickstart first, or set COVEY" >&2; exit 2; }
out=${out:-$(mktemp -d -t covey-torchscript.XXXXXX)}
mkdir -p "$out"
out=$(realpath "$out")
export COVEY_DATA=$data
run_file=examples/08_torchscript/resnet.toml
processes=3
devices_each=10

pids=()
server=
stop_all() {
  for pid in ${server:+"$server"} "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop_all EXIT
value() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$2" | tail -n 1; }

echo "== the network, exported from PyTorch"
python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
  if "$candidate" -c 'import torch' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "PyTorch is missing: apt-get install python3-torch" >&2; exit 1; }
"$python" examples/08_torchscript/export_resnet.py "$out/net.pt"

echo "== the simulator"
"$covey" simulate "$run_file" --set "model.torchscript=$out/net.pt" --out "$out/simulated" \
  --quiet --json >"$out/simulated.json"
simulated=$(value model_sha256 "$out/simulated.json")
echo "rounds $(value rounds "$out/simulated.json"), accuracy $(value accuracy "$out/simulated.json"), model $simulated"
[ $fleet = yes ] || exit 0

echo "== one server, $processes client processes with $devices_each devices each"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$covey" provision create --out "$out/kits" --devices $((processes * devices_each)) \
  --address "127.0.0.1:$port" >"$out/provision.log"
"$covey" server "$run_file" --set "model.torchscript=$out/net.pt" --kit "$out/kits/server" \
  --state "$out/server" --listen "127.0.0.1:$port" --json >"$out/server.json" 2>"$out/server.log" &
server=$!
# A device brings its own copy of the file; the server's plan carries only its SHA-256.
for i in $(seq 0 $((processes - 1))); do
  "$covey" client "$run_file" --torchscript "$out/net.pt" --kits "$out/kits" \
    --devices "$devices_each" --first-device $((i * devices_each)) --json \
    >"$out/client-$i.json" 2>"$out/client-$i.log" &
  pids+=($!)
done
wait "$server" || { echo "the server failed; see $out/server.log" >&2; exit 1; }
server=
for pid in "${pids[@]}"; do wait "$pid" || { echo "a client failed; see $out" >&2; exit 1; }; done
pids=()
deployed=$(value model_sha256 "$out/server.json")
echo "rounds $(value rounds "$out/server.json"), accuracy $(value accuracy "$out/server.json"), model $deployed"
[ -n "$deployed" ] && [ "$deployed" = "$simulated" ] && echo "the same model, bit for bit" ||
  { echo "the models differ" >&2; exit 1; }
echo "logs and results are in $out"
