#!/usr/bin/env bash
# Trains run.toml with every compressor, and under secure aggregation with those that add up, and prints
# what each costs and gains: kB up and down per device and round, all messages counted; how many times less
# goes up than a vector of fp32; accuracy (the mean of the last five rounds); and to 97% the rounds, and the
# MB up of all devices. About ten seconds a row of 100 rounds on two cores.
#
#   examples/16_compression/table.sh [--data DIR] [--out DIR] [--model 2nn|cnn] [--epochs E]
#                                    [--rounds N] [--only 'PLAIN ...'] [--secure 'SECURE ...']
#                                    [--set key=value ...]
#
# --only and --secure: the compressors to run, without and with secure aggregation; '' for none. Behind a
# comma come keys of [secure-aggregation].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() { echo "table.sh: $*" >&2; exit 2; }
data=${COVEY_DATA:-} out='' model=2nn epochs=1 rounds=100 overrides=()
only='fp32 fp16 bf16 int8 int8+zstd int4 int2 int2+error-feedback sign drive drive+error-feedback eden-1
  eden-1+error-feedback eden-2 eden-2+error-feedback eden-3 eden-4 top-k:0.1 top-k:0.01 top-k:0.003
  random-k:0.1 random-k:0.02+error-feedback rate-distortion rate-distortion:1 rate-distortion:1.5+error-feedback'
secure='fp32 int8 int4 int4+error-feedback int2 int2+error-feedback eden-1 eden-1+error-feedback eden-4
  random-k:0.1 random-k:0.1,bits=4,rotation=true,adaptive-clip=true
  random-k:0.1,bits=2,rotation=true,adaptive-clip=true'
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p'; exit 0 ;;
    --data | --out | --model | --epochs | --rounds | --only | --secure)
      [ $# -ge 2 ] || die "$1 takes a value"; declare "${1#--}=$2"; shift ;;
    --set) [ $# -ge 2 ] || die "$1 takes a value"; overrides+=(--set "$2"); shift ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
[ -x "$covey" ] || die "no $covey: run scripts/quickstart first, or set COVEY"
out=${out:-$(mktemp -d -t covey-compression.XXXXXX)}
mkdir -p "$out"
export COVEY_DATA=$data

# A number of the last line of JSON in a file.
total() { tail -n 1 "$2" | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }

# One row. $1: name; then key=value.
row() {
  local name=$1 folder settings=()
  shift
  folder=$out/${name//[^a-z0-9.-]/-}
  for setting in "model.preset=$model" "client.local-epochs=$epochs" "run.num-rounds=$rounds" "$@"; do
    settings+=(--set "$setting")
  done
  if ! "$covey" simulate examples/16_compression/run.toml "${settings[@]}" "${overrides[@]}" --out "$folder" \
    --quiet --json >"$folder.json" 2>"$folder.log"; then
    tail -n 1 "$folder.log" >&2
    return 1
  fi
  local parameters
  parameters=$("$covey" inspect --run "$folder/run.toml" --json | grep -o '"parameters":[0-9]*' | tail -n 1 | cut -d: -f2)
  awk -v name="$name" -v parameters="$parameters" -v all_up="$(total bytes_up "$folder.json")" \
    -v all_down="$(total bytes_down "$folder.json")" '
    function number(key,    value) {
      if (!match($0, "\"" key "\":[^,}]*")) return ""
      value = substr($0, RSTART, RLENGTH)
      sub(/.*:/, "", value)
      return value
    }
    {
      up += number("bytes_up"); devices += number("accepted")
      ++rounds
      accuracy[rounds] = number("accuracy")
      if (!reached && accuracy[rounds] >= 0.97) { reached = rounds; up_then = up }
    }
    END {
      for (i = rounds - 4; i <= rounds; ++i) sum += 100 * accuracy[i]
      printf "%-60s %9.2f %9.1f %8.1fx %9.2f%% %7s %10s\n", name, all_up / devices / 1e3,
        all_down / devices / 1e3, 4 * parameters * devices / all_up, sum / 5, reached ? reached : "-",
        reached ? sprintf("%.3f", all_up * up_then / up / 1e6) : "-"
    }' "$folder/metrics.jsonl"
}

printf '%-60s %9s %9s %9s %10s %7s %10s\n' compressor 'up kB' 'down kB' fewer accuracy 'rounds' 'MB to 97%'
for compressor in $only; do row "$compressor" "client.compressor=$compressor"; done
[ -z "$secure" ] || printf '%.0s-' {1..121}
[ -z "$secure" ] || echo
for secured in $secure; do
  IFS=, read -r compressor keys <<<"$secured"
  row "secure ${secured//,/ }" "client.compressor=$compressor" secure-aggregation.mode=honest-but-curious \
    secure-aggregation.max-weight=600 $(for key in ${keys//,/ }; do echo "secure-aggregation.$key"; done)
done
echo "runs are in $out"
