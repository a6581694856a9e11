#!/usr/bin/env bash
# Runs the end-to-end tests in a virtual machine with cgroup v2: scripts/qemu-tests.sh CACHE VENV SERVER
# SERVER is the program in release; CACHE and VENV as for the other scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=$1
venv=$2
server=$3

payload=$(mktemp -d "${TMPDIR:-/tmp}/faas-payload.XXXXXX")
trap 'rm -rf "$payload"' EXIT
mkdir -p "$payload/faas/tests" "$payload/faas/sdk"
cp -r tests/e2e "$payload/faas/tests/"
cp -r sdk/python "$payload/faas/sdk/"
cp test-gateway.py "$payload/faas/"
cp -r images "$payload/faas/"
cp "$server" "$payload/faas/faas-gateway-server"
cp -r "$venv"/lib/python3*/site-packages "$payload/faas/"
find "$payload" -name __pycache__ -prune -exec rm -rf {} +

# The guest has no TypeScript SDK, no Docker engine and no PostgreSQL. Ordinary users without a delegated cgroup have none,
# and are tested on the host. Three tests share its two processors, since some of their time is spent waiting.
command='cd /faas &&
  export PYTHONPATH=/faas/site-packages:/faas/sdk/python FAAS_GATEWAY_BIN=/faas/faas-gateway-server PYTHONDONTWRITEBYTECODE=1 &&
  export FAAS_FAIL_ON_SKIP=1 E2E_MODES=root &&
  grep -q memory /sys/fs/cgroup/cgroup.controllers &&
  tests="python3 -m pytest -q -ra --color=no -p no:cacheprovider -o faulthandler_timeout=900 --durations=20 --ignore-glob=*/test_docker*.py tests/e2e" &&
  code=0 &&
  { $tests -n 3 --dist loadgroup --no-loadscope-reorder \
      -k "not typescript and not postgresql and not docker" -m "not alone" || code=1; } &&
  { $tests -k "not typescript and not postgresql and not docker" -m alone || code=1; } &&
  exit $code'
scripts/qemu-guest.sh "$cache" "$payload" "$command"
