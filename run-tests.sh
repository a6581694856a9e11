#!/usr/bin/env bash
# Runs every check of this repository: formatting, lints, tests of all languages, a started server under them, and at
# the end a look for anything left behind. Installs what is missing. Needs root (sandboxes with limits need it).
set -euo pipefail
cd "$(dirname "$0")"
top=$PWD

usage() {
  cat <<'TEXT'
Usage: ./run-tests.sh [--long] [--only STEP]... [--list] [--help]

  --long       the long forms: 300 s of each soak, 60 s for each fuzz target, 10,000 executions under ab, and the
               end-to-end tests once more in a virtual machine with cgroup v2
  --only STEP  this step alone (may be given again); `provision` and what a step stands on run first
  --list       the steps, one a line

Environment:
  FAAS_CACHE_DIR     where builds and packages are kept (default: $XDG_CACHE_HOME/faas-tests or ~/.cache/faas-tests)
  CARGO_TARGET_DIR   where cargo builds (default: target in the cache directory)
  FAAS_SOAK_SECONDS  how long the server is kept under load, with executions and with instances that are killed (30)
  FAAS_E2E_WORKERS   how many end-to-end tests run at once (two for each core)
  FAAS_FUZZ_SECONDS  how long each fuzz target runs (10)
  FAAS_FAIL_ON_SKIP  0: a skipped test is shown and no failure (1)

A test may be skipped only for want of a capability in tests/not-on-ci.txt.
TEXT
}

# name, what it stands on (the programs in release, a running server, a Docker engine, a PostgreSQL server; - for
# nothing), what it does
steps=(
  'fmt        -       formatting of the Rust code'
  'clippy     -       lints of the Rust code, warnings are errors'
  'scripts    -       syntax of the shell scripts, format of the Python ones'
  'nextest    engine,postgres Rust tests, the attack suite among them'
  'doctest    -       examples in the Rust documentation'
  'features   engine,postgres Rust tests of the server with the runtime docker alone; with native alone it compiles'
  'deny       -       licences, banned crates, sources'
  'release    -       the server in release'
  'python     server  Python SDK: ruff, mypy, pytest, live tests too'
  'typescript server  TypeScript SDK: lint, build, vitest, live tests too'
  'e2e        release,engine,postgres end-to-end tests through the Python SDK'
  'smoke      server  test-gateway.py'
  'docs       server  the examples of the documents, as they stand'
  'ab         server  Apache Bench as in docs/load-testing.md'
  'stop       -       the server ends cleanly on SIGTERM'
  'fuzz       -       a short run of each fuzz target'
  'qemu       release the end-to-end tests in a virtual machine with cgroup v2 (with --long only)'
  'soak       release the server under load: no failed answer, no growth, nothing left'
  'leaks      -       nothing of all this is left on the machine'
)

only=()
long=
while [ $# -gt 0 ]; do
  case $1 in
    --long) long=1 ;;
    --only) only+=("${2:?--only needs a step}"); shift ;;
    --list) printf '%s\n' "${steps[@]}"; exit 0 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
for name in ${only[@]+"${only[@]}"}; do
  printf '%s\n' "${steps[@]}" | grep -q "^$name " || { echo "no step $name; see --list" >&2; exit 64; }
done

if [ "$(id -u)" != 0 ]; then
  echo "run-tests.sh needs root: sandboxes with enforced limits can be made by nobody else on this kind of host" >&2
  exit 1
fi

cache=${FAAS_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}
mkdir -p "$cache"
export FAAS_CACHE_DIR=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/venv
# Short, because paths of Unix sockets are; open to be traversed, because sandboxes have other users.
work=$(mktemp -d /tmp/faas-tests.XXXXXX)
chmod 711 "$work"
mkdir -m 1777 "$work/tmp"
mkdir "$work/log"
export TMPDIR=$work/tmp
export PATH=$venv/bin:$PATH
export FAAS_GATEWAY_BIN=$CARGO_TARGET_DIR/release/faas-gateway-server
export FAAS_SKIP_LOG=$work/skips
export FAAS_ALLOWED_SKIPS
FAAS_ALLOWED_SKIPS=$(grep -v '^#' tests/not-on-ci.txt | paste -sd, -)
[ "${FAAS_FAIL_ON_SKIP:-1}" = 0 ] && unset FAAS_FAIL_ON_SKIP || export FAAS_FAIL_ON_SKIP=1
soak_seconds=${FAAS_SOAK_SECONDS:-$([ -n "$long" ] && echo 300 || echo 30)}
e2e_workers=${FAAS_E2E_WORKERS:-$((2 * $(nproc)))}
fuzz_seconds=${FAAS_FUZZ_SECONDS:-$([ -n "$long" ] && echo 60 || echo 10)}
[ -n "$long" ] && export FAAS_AB_REQUESTS=10000
: >"$FAAS_SKIP_LOG"

server_pid=
step_pid=
engine=
postgres=
# Ends a process and all below it, in whatever groups they are: timeout(1) makes one of its own.
end_tree() {
  local child
  for child in $(pgrep -P "$1"); do end_tree "$child"; done
  kill "$1" 2>/dev/null || true # it may have ended meanwhile
}
finish() {
  # Only what this script started, by its pid.
  if [ -n "$step_pid" ]; then
    end_tree "$step_pid"
    # And those of its group whose parent went before them.
    kill -- "-$step_pid" 2>/dev/null || true
  fi
  if [ -n "$server_pid" ]; then
    # Before it listens it is a script that waits for a compiler; a server ends what is below it itself.
    if [ -n "${FAAS_BASE_URL:-}" ]; then kill "$server_pid" 2>/dev/null || true; else end_tree "$server_pid"; fi
    wait "$server_pid" 2>/dev/null || true
  fi
  stop_engine || true
  stop_postgres || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A command with a limit on its time, so that nothing hangs.
within() { timeout --kill-after=10 "$@"; }

# The server that the live steps talk to, started as a user would.
start_server() {
  [ -z "$server_pid" ] || return 0
  ./start-gateway.sh --listen 127.0.0.1:0 --data-dir "$work/data" >"$work/server.out" 2>"$work/server.log" </dev/null &
  server_pid=$!
  local tries
  for ((tries = 0; tries < 6000; tries++)); do
    FAAS_BASE_URL=$(sed -n 's#^listening on \(http://.*\)$#\1#p' "$work/server.out" | head -1)
    [ -z "$FAAS_BASE_URL" ] || break
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  export FAAS_BASE_URL
  [ -n "$FAAS_BASE_URL" ] || { echo "the server did not start:"; cat "$work/server.out" "$work/server.log"; return 1; }
}

# A Docker engine of our own, with the test images.
start_engine() {
  [ -z "$engine" ] || return 0
  engine=$work/engine
  within 1800 scripts/test-engine.sh start "$engine" </dev/null || return 1
  export FAAS_TEST_DOCKER_HOST=unix://$engine/docker.sock
}

stop_engine() {
  [ -n "$engine" ] || return 0
  within 120 scripts/test-engine.sh stop "$engine" </dev/null
  engine=
}

# A PostgreSQL server of our own.
start_postgres() {
  [ -z "$postgres" ] || return 0
  postgres=$work/postgres
  FAAS_TEST_POSTGRES_URL=$(within 120 scripts/test-postgres.sh start "$postgres" </dev/null) || return 1
  export FAAS_TEST_POSTGRES_URL
}

stop_postgres() {
  [ -n "$postgres" ] || return 0
  within 120 scripts/test-postgres.sh stop "$postgres" </dev/null
  postgres=
}

step_fmt() { cargo fmt --all --check; }
step_clippy() { cargo clippy --workspace --all-targets -- -D warnings; }

step_scripts() {
  local file
  for file in run-tests.sh start-gateway.sh .ci/run bench/run bench/compare scripts/*.sh; do bash -n "$file"; done
  "$venv/bin/ruff" check --isolated --select E,F,I,B,UP --line-length 120 --target-version py311 scripts/*.py test-gateway.py
  "$venv/bin/ruff" format --isolated --check --line-length 120 scripts/*.py test-gateway.py
}

step_nextest() { within 1800 cargo nextest run --workspace; }
step_doctest() { within 900 cargo test --workspace --doc --quiet; }

# The runtime docker alone is what is built for macOS and Windows. Left out is what costs much and asks the same again:
# the suite in large images, most of its many executions, and what tests the test engine itself. Cargo keeps what each
# feature set has apart in one directory, but for the name debug/faas-gateway-server: each cargo links its own to it.
step_features() {
  FAAS_CONFORMANCE_EXECUTIONS=50 within 1200 cargo nextest run -p faas-executor -p faas-gateway-server \
    --no-default-features --features docker -E 'not test(/^docker::.*::python::|^a_hundred_executions|^a_test_engine/)'
  cargo check --quiet --tests -p faas-executor -p faas-gateway-server --no-default-features --features native
}

step_deny() {
  if command -v cargo-deny >/dev/null; then
    cargo deny check licenses bans sources
  else
    echo "NOT RUN: cargo-deny is not installed (cargo install --locked cargo-deny); deny.toml is not checked here"
  fi
}

step_release() { cargo build --quiet --release -p faas-gateway-server -p faas-bench; }

step_python() {
  cd "$top/sdk/python"
  "$venv/bin/ruff" check .
  "$venv/bin/ruff" format --check .
  "$venv/bin/mypy"
  within 600 "$venv/bin/python" -m pytest -q -p no:cacheprovider
}

step_typescript() {
  cd "$top/sdk/typescript"
  npm run --silent lint
  npm run --silent build
  within 600 npm test --silent
}

# Most of its time is spent waiting, so more run at once than there are cores; those that look at the machine as a whole run
# afterwards, alone. One of its tests is the soak of instances, in eight forms.
step_e2e() {
  local code=0 pytest=("$venv/bin/python" -m pytest -q -ra -p no:cacheprovider)
  export FAAS_SOAK_SECONDS=$soak_seconds
  within $((2700 + 8 * soak_seconds)) "${pytest[@]}" -n "$e2e_workers" --dist loadgroup --no-loadscope-reorder \
    -m 'not alone' tests/e2e || code=1
  within 600 "${pytest[@]}" -m alone tests/e2e || code=1
  return $code
}
step_smoke() { within 300 "$venv/bin/python" ./test-gateway.py --base-url "$FAAS_BASE_URL"; }

step_docs() {
  within 600 "$venv/bin/python" scripts/doc-examples.py README.md docs/*.md docs/*/*.md sdk/*/README.md
}

step_ab() { within 300 scripts/ab.sh; }

step_fuzz() { scripts/fuzz.sh "$fuzz_seconds"; }

step_qemu() {
  if [ -z "$long" ]; then
    echo "only with --long"
    return
  fi
  within 7200 scripts/qemu-tests.sh "$cache" "$venv" "$FAAS_GATEWAY_BIN"
}

step_soak() {
  within $((soak_seconds + 120)) "$CARGO_TARGET_DIR/release/faas-bench" run growth --seconds "$soak_seconds" \
    --server "$FAAS_GATEWAY_BIN" --results "$work/results"
}

step_leaks() {
  local tries new=
  for ((tries = 0; tries < 20; tries++)); do
    scripts/leaks.sh | sort >"$work/after"
    new=$(comm -13 "$work/before" "$work/after")
    [ -n "$new" ] || return 0
    sleep 0.5
  done
  echo "left behind:"
  echo "$new"
  return 1
}

# Ends the server in this shell, which is its parent.
stop_server() {
  [ -n "$server_pid" ] || { echo "no server was started"; return 0; }
  local code=0
  kill -TERM "$server_pid"
  wait "$server_pid" || code=$?
  server_pid=
  [ "$code" = 0 ] || { echo "the server ended with $code:"; tail -50 "$work/server.log"; return 1; }
  echo "ended with 0"
}

passed=()
failed=()
verdict() {
  if [ "$2" = 0 ]; then
    passed+=("$1")
    echo "-- $1: passed, $3 s"
  else
    failed+=("$1")
    echo "-- $1: FAILED ($2), $3 s"
  fi
}

# Skips that a test tool itself shows: Python's and vitest's. Ours of Rust are in FAAS_SKIP_LOG.
foreign_skips() {
  sed -E 's/\x1b\[[0-9;]*m//g' "$1" | grep -E '^SKIPPED \[|[|↓] .*skipped|(Tests|Test Files) .*[0-9]+ skipped' |
    while read -r line; do
      capability=$(sed -nE 's/^SKIPPED \[[0-9]+\] [^ ]+: ([a-z0-9-]+): .*/\1/p' <<<"$line")
      [ -n "$capability" ] && grep -qx "$capability" tests/not-on-ci.txt || echo "$line"
    done
}

run_step() {
  local name=$1 needs=$2 what=$3 begin=$SECONDS code=0
  echo
  echo "== $name: $what"
  local need
  for need in ${needs//,/ }; do
    case $need in
      release) step_release || code=1 ;;
      server) start_server || code=1 ;;
      engine) start_engine || code=1 ;;
      postgres) start_postgres || code=1 ;;
    esac
  done
  if [ "$code" != 0 ]; then
    verdict "$name" "$code" $((SECONDS - begin))
    return
  fi
  if [ "$name" = stop ]; then
    stop_server || code=$?
    verdict "$name" "$code" $((SECONDS - begin))
    return
  fi
  if [ "$name" = leaks ]; then
    if [ -n "$server_pid" ]; then stop_server || code=$?; fi
    stop_engine || code=$?
    stop_postgres || code=$?
  fi
  # A job of its own, in a process group of its own, so that it can be ended whole; -e holds in it.
  set -m
  (
    set -euo pipefail
    trap 'echo "-- end of $name"' EXIT
    "step_$name"
  ) </dev/null > >(tee "$work/log/$name") 2>&1 &
  step_pid=$!
  set +m
  wait "$step_pid" || code=$?
  step_pid=
  # tee may still have lines to write.
  local tries
  for ((tries = 0; tries < 50; tries++)); do
    ! grep -qx -- "-- end of $name" "$work/log/$name" || break
    sleep 0.1
  done
  if [ "$code" = 0 ] && [ -n "${FAAS_FAIL_ON_SKIP:-}" ] && [ -n "$(foreign_skips "$work/log/$name")" ]; then
    echo "skipped, and not for want of a capability in tests/not-on-ci.txt:"
    foreign_skips "$work/log/$name"
    code=1
  fi
  verdict "$name" "$code" $((SECONDS - begin))
}

wanted() {
  [ ${#only[@]} -eq 0 ] && return 0
  local name
  for name in "${only[@]}"; do [ "$name" = "$1" ] && return 0; done
  return 1
}

echo "== provision: what the tests need"
scripts/provision.sh "$venv" </dev/null
scripts/leaks.sh | sort >"$work/before"

for step in "${steps[@]}"; do
  read -r name needs what <<<"$step"
  if wanted "$name"; then run_step "$name" "$needs" "$what"; fi
done

echo
if [ -s "$FAAS_SKIP_LOG" ]; then
  echo "skipped:"
  sort -u "$FAAS_SKIP_LOG"
fi
[ ${#failed[@]} -eq 0 ] || echo "failed: ${failed[*]}"
echo "steps: ${#passed[@]} passed, ${#failed[@]} failed; $SECONDS s"
echo "${#passed[@]} passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]
