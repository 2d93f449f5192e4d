#!/usr/bin/env bash
# Trains one run file in every precision and prints what each costs and reaches.
#
#   examples/07_quantised/compare.sh RUN_FILE [--seed N] [--rounds N] [--out FOLDER]
#
# RUN_FILE  examples/07_quantised/2nn.toml or cnn.toml; MNIST is found through COVEY_DATA
# --out     default runs/quantised; its folders must not be there yet
#
# Columns: accuracy of the model that devices get, its mean over the last ten rounds, bytes down and up
# per device and round, weights + activations + scratch of a device by the engine's plan, growth of a
# process that trains (covey bench train), and its steps per second.
set -euo pipefail

die() { echo "compare.sh: $*" >&2; exit 2; }
usage() { sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p'; }

seed=1 out=runs/quantised rounds='' run_file=''
while [ $# -gt 0 ]; do
  case $1 in
    --seed | --rounds | --out)
      [ $# -ge 2 ] || die "$1 takes a value"
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    -*) die "unknown option $1; see --help" ;;
    *) run_file=$1 ;;
  esac
  shift
done
[ -n "$run_file" ] || { usage >&2; exit 2; }
[ -f "$run_file" ] || die "there is no $run_file"
command -v covey >/dev/null || die "covey is not on the PATH; it is in build/release/bin"

# Value of a number in one line of JSON.
number() { grep -o "\"$1\":[^,}]*" <<<"$2" | head -n 1 | cut -d: -f2; }

model=$(sed -n 's/^preset = "\(.*\)"/\1/p' "$run_file")
[ -n "$model" ] || die "$run_file names no preset"
options=(--seed "$seed" --quiet --json)
[ -z "$rounds" ] || options+=(--set "run.num-rounds=$rounds")

printf '%-9s %9s %9s %10s %10s %10s %10s %9s\n' \
  precision accuracy last-10 'down kB' 'up kB' 'plan kB' 'growth kB' steps/s
for precision in fp32 bf16 qat-int8 int8; do
  folder=$out/$model-$precision-$seed
  result=$(covey simulate "$run_file" "${options[@]}" --out "$folder" \
    --set "client.precision=\"$precision\"" | tail -n 1)
  speed=$(covey bench train --model "$model" --precision "$precision" --json | tail -n 1)
  mean=$(tail -n 10 "$folder/metrics.jsonl" | grep -o '"accuracy":[^,}]*' | cut -d: -f2 |
    awk '{ sum += $1 } END { print 100 * sum / NR }')
  reports=$(grep -o '"accepted":[0-9]*' "$folder/metrics.jsonl" | cut -d: -f2 |
    awk '{ sum += $1 } END { print sum }')
  awk -v p="$precision" -v a="$(number accuracy "$result")" -v m="$mean" -v n="$reports" \
    -v down="$(number bytes_down "$result")" -v up="$(number bytes_up "$result")" \
    -v plan="$(number engine_bytes "$speed")" -v growth="$(number rss_growth_bytes "$speed")" \
    -v rate="$(number steps_per_s "$speed")" \
    'BEGIN { printf "%-9s %8.2f%% %8.2f%% %10.1f %10.1f %10.1f %10.1f %9.0f\n",
             p, 100 * a, m, down / n / 1e3, up / n / 1e3, plan / 1e3, growth / 1e3, rate }'
done
