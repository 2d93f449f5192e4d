#!/usr/bin/env bash
# Trains mnist.toml with every mechanism at epsilon 2, 4 and 8 and prints how accurate the models are: the
# mean over the last five rounds, over the seeds. Takes less than ten minutes on two cores.
#
#   examples/10_differential_privacy/compare.sh [--data DIR] [--out DIR] [--seeds "1 2"] [--set key=value ...]
#
# The rows above the line differ only in who makes the noise: nobody, the server, or the devices, each its
# share, under secure aggregation; same rounds, same devices, same accountant (rdp), no amplification.
# Columns: accuracy at each epsilon, the noise multiplier and kB up per device and round at epsilon 8.
# Each run must end within its epsilon, and at what covey privacy says of its run file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

die() { echo "compare.sh: $*" >&2; exit 2; }
data=${COVEY_DATA:-} out='' seeds='1 2' overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p'; exit 0 ;;
    --data | --out | --seeds) [ $# -ge 2 ] || die "$1 takes a value"; declare "${1#--}=$2"; shift ;;
    --set) [ $# -ge 2 ] || die "$1 takes a value"; overrides+=(--set "$2"); shift ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done
covey=${COVEY:-build/release/bin/covey}
[ -x "$covey" ] || die "no $covey: run scripts/quickstart first, or set COVEY"
run_file=examples/10_differential_privacy/mnist.toml
out=${out:-$(mktemp -d -t covey-privacy.XXXXXX)}
mkdir -p "$out"
export COVEY_DATA=$data

# The last value of a number in lines of JSON.
last() { grep -o "\"$1\":[^,}]*" "$2" | tail -n 1 | cut -d: -f2; }

# One run: its accuracy to stdout. $1: folder; $2: epsilon, 0 for none; then key=value.
train() {
  local folder=$1 epsilon=$2 settings=()
  shift 2
  for setting in "privacy.epsilon=$epsilon" "$@"; do settings+=(--set "$setting"); done
  "$covey" simulate "$run_file" "${settings[@]}" "${overrides[@]}" --out "$folder" --quiet --json \
    >"$folder.json" 2>"$folder.log" || { tail -n 1 "$folder.log" >&2; return 1; }
  "$covey" privacy "$folder/run.toml" --json >"$folder.privacy"
  awk -v budget="$epsilon" -v spent="$(last epsilon "$folder/metrics.jsonl")" \
    -v foretold="$(last epsilon "$folder.privacy")" 'BEGIN {
      exit !((budget == 0 || spent <= budget) && (spent - foretold) ^ 2 <= (1e-9 * foretold) ^ 2) }' ||
    { echo "compare.sh: $folder spent another epsilon than its run file's" >&2; return 1; }
  tail -n 5 "$folder/metrics.jsonl" | grep -o '"accuracy":[^,}]*' | cut -d: -f2 |
    awk '{ sum += $1 } END { print 100 * sum / NR }'
}

# A row of the table. $1: name; $2: epsilons; then key=value.
row() {
  local name=$1 epsilons=$2 folder accuracies
  shift 2
  printf '%-42s' "$name"
  for epsilon in $epsilons; do
    accuracies=
    for seed in $seeds; do
      folder=$out/${name//[ ,]/-}-$epsilon-$seed
      accuracies+="$(train "$folder" "$epsilon" "run.seed=$seed" "$@") "
    done
    awk -v all="$accuracies" 'BEGIN { n = split(all, a, " "); for (i in a) sum += a[i]
      printf "%8.2f%%", sum / n }'
  done
  awk -v z="$(last noise_multiplier "$folder/metrics.jsonl")" -v up="$(last bytes_up "$folder/metrics.jsonl")" \
    -v n="$(last accepted "$folder/metrics.jsonl")" -v columns="$(wc -w <<<"$epsilons")" 'BEGIN {
      printf "%*s %8s %9.1f\n", 9 * (3 - columns), "", columns == 3 ? sprintf("%.2f", z) : "", up / n / 1e3 }'
}

# Nothing of an update is cut at a coordinate as large as its norm (privacy.clip-norm), whatever the
# rotation makes of it; and rounding at 16 bits adds less than 0.01% to the norm that is counted.
secure=(secure-aggregation.mode=honest-but-curious secure-aggregation.rotation=true
  secure-aggregation.bits=16 secure-aggregation.clip=3.0)

printf '%-42s%9s%9s%9s %8s %9s\n' mechanism 'eps 2' 'eps 4' 'eps 8' z 'up kB'
row 'clipped, no noise to speak of' 0 privacy.noise-multiplier=1e-5
row 'central-gaussian' '2 4 8'
row 'discrete-gaussian' '2 4 8' privacy.mechanism=discrete-gaussian "${secure[@]}"
row 'skellam' '2 4 8' privacy.mechanism=skellam "${secure[@]}"
printf '%.0s-' {1..87}
echo
# In expectation as many contributions of each device, ten.
row 'central, a fifth drawn, 50 rounds, pld' '2 4 8' selection.policy=poisson selection.fraction-fit=0.2 \
  run.num-rounds=50 privacy.amplification=true privacy.accountant=pld
row 'central, adaptive clip from 1' '2 4 8' privacy.clip=adaptive privacy.clip-norm=1.0 \
  privacy.clip-learning-rate=0.5
# Whoever has taken part twice is not invited again, so a round begins when 100 of the others are there.
row 'dp-ftrl, each device in 2 of 10 rounds' '2 4 8' privacy.mechanism=dp-ftrl privacy.max-participations=2 \
  selection.min-available-clients=100 privacy.clip-norm=1.0 client.learning-rate=0.3
row 'local-gaussian' '2 4 8' privacy.mechanism=local-gaussian
echo "runs are in $out"
