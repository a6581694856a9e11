#!/usr/bin/env bash
# Runs the end-to-end tests and the Rust tests of sandboxes and images in a virtual machine with cgroup v2:
# scripts/qemu-tests.sh CACHE VENV SERVER
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

# The Rust tests as they were compiled here. They know paths of this machine, of their sources and of programs beside
# them, so in the guest all of it is at the same paths. Unit tests that touch no kernel have nothing to say of cgroup v2.
target=${CARGO_TARGET_DIR:-$PWD/target}
rust='(package(faas-gateway-server) & kind(test)) | (package(faas-executor) & not binary(docker) & not test(/^docker::/))'
cargo nextest archive --cargo-quiet -p faas-gateway-server -p faas-executor --archive-file "$payload/faas/tests.tar.zst"
git ls-files -z | xargs -0 cp --parents -t "$(mkdir -p "$payload$PWD" && echo "$payload$PWD")"
for recipe in alpine users python scratch; do
  archive=$(FAAS_CACHE_DIR=$cache images/archive.sh "$recipe")
  mkdir -p "$payload$(dirname "$archive")"
  cp "$archive" "$payload$archive"
done
cp "$(command -v cargo-nextest)" "$payload/faas/"

# The guest has no TypeScript SDK, and no Docker engine.
command='cd /faas &&
  export PYTHONPATH=/faas/site-packages:/faas/sdk/python FAAS_GATEWAY_BIN=/faas/faas-gateway-server PYTHONDONTWRITEBYTECODE=1 &&
  export FAAS_FAIL_ON_SKIP=1 NEXTEST_HIDE_PROGRESS_BAR=1 CARGO_TERM_COLOR=never FAAS_CACHE_DIR='$cache' &&
  grep -q memory /sys/fs/cgroup/cgroup.controllers &&
  { python3 -m pytest -q -ra --color=no -p no:cacheprovider -k "not typescript" --ignore-glob="*/test_docker*.py" tests/e2e
    e2e=$?
    mkdir -p /unpacked '$(dirname "$target")' && ln -s /unpacked/target '$target' &&
    ./cargo-nextest nextest run --archive-file tests.tar.zst --extract-to /unpacked --workspace-remap '$PWD' \
      --profile qemu --test-threads 2 --status-level all --final-status-level fail -E "'$rust'" && exit $e2e; }'
scripts/qemu-guest.sh "$cache" "$payload" "$command"
