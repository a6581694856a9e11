#!/usr/bin/env bash
# Runs each fuzz target for so many seconds, beginning with its seeds: scripts/fuzz.sh 10
# Needs a nightly toolchain for coverage and the address sanitizer; without one the seeds alone are replayed.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-10}
host=$(rustc -vV | sed -n 's/^host: //p')
work=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export CARGO_TARGET_DIR=$work

if rustup run nightly rustc --version >/dev/null 2>&1; then
  # What cargo-fuzz sets; given to the target alone, so that build scripts are not instrumented.
  flags='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address
    -Cdebug-assertions -Cdebuginfo=1 --cfg fuzzing'
  CARGO_ENCODED_RUSTFLAGS=$(echo $flags | tr ' ' '\037') rustup run nightly cargo build --locked --release --quiet --target "$host"
  built=$work/$host/release
else
  echo "NOT FUZZED: no nightly toolchain (rustup toolchain install nightly); the seeds are replayed"
  cargo build --locked --release --quiet
  built=$work/release
  seconds=
fi

for source in fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  echo "-- $target"
  artifacts=$work/artifacts/$target
  mkdir -p "$work/corpus/$target" "$artifacts"
  if [ -n "$seconds" ]; then
    "$built/$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
      -verbosity=0 -print_funcs=0 -artifact_prefix="$artifacts/" "$work/corpus/$target" "seeds/$target" 2>&1 |
      sed '/^###### Recommended dictionary/,/^###### End of recommended/d'
  else
    "$built/$target" -artifact_prefix="$artifacts/" seeds/"$target"/*
  fi
done
