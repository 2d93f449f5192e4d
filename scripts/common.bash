# Shared by the scripts of this folder; sourced, not run. Goes to the repository's root.

script_path=$(realpath "$0")

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# die SENTENCE: the last thing a failing script says.
die() {
  printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}

# "45 seconds", "3 minutes 5 seconds"
human_seconds() {
  local minutes=$(($1 / 60)) seconds=$(($1 % 60)) text=
  if [ "$minutes" -eq 1 ]; then text="1 minute "; fi
  if [ "$minutes" -gt 1 ]; then text="$minutes minutes "; fi
  case $seconds in
    0) [ "$1" -gt 0 ] || text="under a second " ;;
    1) text+="1 second " ;;
    *) text+="$seconds seconds " ;;
  esac
  printf '%s' "${text% }"
}

# step TITLE SENTENCE-IF-IT-FAILS COMMAND...: runs the command and says how long it took.
step() {
  local title=$1 sentence=$2 began=$SECONDS
  shift 2
  printf '==> %s\n' "$title"
  "$@" || die "$sentence"
  printf '    done in %s\n' "$(human_seconds $((SECONDS - began)))"
}

# configure PRESET: into build/PRESET; CMake's own output only if it fails.
configure() {
  local preset=$1 log fresh=()
  # A build folder that came from elsewhere (a copied tree) would be refused by CMake.
  if [ -f "build/$preset/CMakeCache.txt" ] &&
    ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" "build/$preset/CMakeCache.txt"; then
    fresh=(--fresh)
  fi
  log=$(mktemp)
  if ! cmake "${fresh[@]}" --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# Compilers that may run at the same time: one per core, and 1.5 GB of memory for each (the largest
# translation units take 1 to 1.4 GB).
build_jobs() {
  local cores memory_kb jobs
  cores=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null)
  jobs=$((${memory_kb:-1500000} / 1500000))
  [ "$jobs" -lt "$cores" ] || jobs=$cores
  [ "$jobs" -ge 1 ] || jobs=1
  printf '%s' "$jobs"
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  cmake --build "build/$preset" --parallel "$(build_jobs)" ${1:+--target "$@"}
}

# usage: prints the comment at the top of the running script, without its first line.
usage() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$script_path"
}
