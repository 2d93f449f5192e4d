#!/usr/bin/env bash
# A server and four devices with tables of their own; one device is killed in the midst and goes on where
# it was.
#
#   examples/17_devices/run.sh [--out DIR]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift ;;
    -h|--help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
client=${COVEY_CLIENT:-$(dirname "$covey")/covey-client}
for program in "$covey" "$client"; do
  [ -x "$program" ] || { echo "no $program: run scripts/quickstart first, or set COVEY" >&2; exit 2; }
done
out=${out:-$(mktemp -d -t covey-devices.XXXXXX)}
mkdir -p "$out"

pids=()
server=
stop_all() {
  for pid in ${server:+"$server"} "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop_all EXIT

# table SEED ROWS: eight bands of a spectrum and how worn the machine is (0, 1 or 2).
table() {
  awk -v seed="$1" -v rows="$2" 'BEGIN {
    srand(seed)
    for (band = 0; band < 8; ++band) printf "band%d,", band
    print "label"
    for (row = 0; row < rows; ++row) {
      wear = int(3 * rand())
      for (band = 0; band < 8; ++band) {
        noise = rand() + rand() + rand() - 1.5
        printf "%.3f,", (band % 3 == wear ? 0.6 : 0.2) + 0.5 * noise
      }
      print wear
    }
  }'
}
table 100 500 >"$out/test.csv"
devices=4
last=$((devices - 1))
for i in $(seq 0 $last); do table "$i" 200 >"$out/machine-$i.csv"; done

port=$((20000 + RANDOM % 20000))
"$covey" provision create --out "$out/kits" --devices "$devices" --address "127.0.0.1:$port" >"$out/provision.log"

echo "== one server, $devices devices"
"$covey" server examples/17_devices/run.toml --data "$out" --kit "$out/kits/server" --state "$out/server" \
  --listen "127.0.0.1:$port" --json >"$out/server.json" 2>"$out/server.log" &
server=$!
start_device() {
  "$client" --config examples/17_devices/client.toml --kit "$out/kits/device-000$1" \
    --data "csv:$out/machine-$1.csv" --state "$out/state-$1" --json \
    >"$out/device-$1.json" 2>>"$out/device-$1.log" &
  pids[$1]=$!
}
for i in $(seq 0 $last); do start_device "$i"; done
committed() { grep -c 'round committed' "$out/server.log" 2>/dev/null || true; }
for _ in $(seq 600); do
  [ "$(committed)" -lt 3 ] || break
  sleep 0.05
done
[ "$(committed)" -ge 3 ] || { echo "no three rounds in half a minute; see $out/*.log" >&2; exit 1; }
kill -9 "${pids[1]}" 2>/dev/null || true
wait "${pids[1]}" 2>/dev/null || true
echo "   device 1 is killed and comes back"
start_device 1

wait "$server" || { echo "the server failed; see $out/server.log" >&2; exit 1; }
server=
for pid in "${pids[@]}"; do wait "$pid" || { echo "a device failed; see $out" >&2; exit 1; }; done
pids=()
value() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$2" | tail -n 1; }
echo "rounds $(value rounds "$out/server.json"), accuracy $(value accuracy "$out/server.json")"
for i in $(seq 0 $last); do
  echo "device $i: $(value updates_accepted "$out/device-$i.json") updates, $(value bytes_sent "$out/device-$i.json") bytes up, at most $(value peak_rss_mib "$out/device-$i.json") MiB resident"
done
echo "logs and results are in $out"
