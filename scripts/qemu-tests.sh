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

# The guest has no TypeScript SDK, no Docker engine and no PostgreSQL.
command='cd /faas &&
  export PYTHONPATH=/faas/site-packages:/faas/sdk/python FAAS_GATEWAY_BIN=/faas/faas-gateway-server PYTHONDONTWRITEBYTECODE=1 &&
  export FAAS_FAIL_ON_SKIP=1 &&
  grep -q memory /sys/fs/cgroup/cgroup.controllers &&
  python3 -m pytest -q -ra --color=no -p no:cacheprovider -k "not typescript and not postgresql" --ignore-glob="*/test_docker*.py" tests/e2e'
scripts/qemu-guest.sh "$cache" "$payload" "$command"
