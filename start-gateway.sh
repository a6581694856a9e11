#!/usr/bin/env bash
# Starts the gateway: looks what the machine has, installs or names what is missing, builds in release unless that is
# done already, and becomes the server. Arguments are passed on to it (faas-gateway-server --help).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$top/target}")
program=$target/release/faas-gateway-server

usage() {
  cat <<'TEXT'
Usage: ./start-gateway.sh [ARGUMENT]...

Builds the gateway where that is needed and starts it on http://localhost:8080. Arguments are passed on to the server:

  ./start-gateway.sh --listen 127.0.0.1:9000 --data-dir /srv/faas

Ctrl-C or SIGTERM ends it when the running requests have ended, a second one at once.

The server's own options:

TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "start-gateway.sh: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

check_machine() {
  [ "$(uname -s)" = Linux ] || die "this is $(uname -s); the server runs on Linux (5.12 or newer) only"
  case $(uname -m) in
    x86_64 | aarch64) ;;
    *) die "this is $(uname -m); there are system call policies for x86_64 and aarch64 only" ;;
  esac
  is_root || say "not root: sandboxes are made without it; what this host does not let an ordinary user enforce is in /health"
}

# What building and running take beside cargo. Installed where that can be done, named where it cannot.
install_missing() {
  local needed=() optional=() packages
  if [ "$1" = build ]; then
    have cc || needed+=(gcc libc6-dev)
  fi
  # For requests with disk_mb.
  [ -x /usr/sbin/mke2fs ] || [ -x /sbin/mke2fs ] || [ -x /usr/local/sbin/mke2fs ] || optional+=(e2fsprogs)
  packages=(${needed[@]+"${needed[@]}"} ${optional[@]+"${optional[@]}"})
  [ ${#packages[@]} -gt 0 ] || return 0
  if is_root && have apt-get; then
    say "installing: ${packages[*]}"
    { DEBIAN_FRONTEND=noninteractive apt-get update -q &&
      DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2 && return 0
    say "apt-get could not install them"
  fi
  [ ${#needed[@]} -eq 0 ] || die "missing: ${needed[*]} (the names of Debian's packages); install them, then start again"
  say "missing: ${optional[*]}; without it requests with disk_mb are refused"
}

is_up_to_date() {
  [ -x "$program" ] &&
    [ -z "$(find "$top/crates" "$top/docs/errors" "$top/Cargo.toml" "$top/Cargo.lock" \
      -type f -newer "$program" -print -quit)" ]
}

build() {
  if is_up_to_date; then
    install_missing run
    return
  fi
  if ! have cargo; then
    [ -x "$program" ] || die "no cargo: install Rust 1.95 or newer (https://rustup.rs), then start again"
    say "no cargo: $program is started as it is, though the sources are newer"
    install_missing run
    return
  fi
  install_missing build
  say "building the server in release (the first time takes some minutes)"
  # Where it is built must be where it is looked for, whatever cargo's own configuration says.
  (cd "$top" && unset CARGO_BUILD_TARGET && cargo build --release -p faas-gateway-server --target-dir "$target") >&2
  [ -x "$program" ] || die "cargo has built the server somewhere else than $program: is build.target set?"
  # Cargo leaves a program alone that is the same as before.
  touch "$program"
}

# Repeats what the server says, and adds an example once it listens.
show() {
  local line address
  trap '' INT
  while IFS= read -r line; do
    printf '%s\n' "$line"
    address=${line#listening on }
    [ "$address" != "$line" ] || continue
    cat <<TEXT

Try it:

  curl -s $address/api/v1/execute -H 'content-type: application/json' -d '{"command":"echo hello from \$(uname -n); python3 -c \"print(2**100)\""}'

The API to read and try: $address/docs/   Stop with Ctrl-C.
TEXT
  done
}

case ${1:-} in
  -h | --help)
    usage
    [ ! -x "$program" ] || exec "$program" --help
    say "(not built yet: start it once)"
    exit 0
    ;;
esac
check_machine
build
# The server takes this script's place, so that signals reach it.
exec "$program" "$@" > >(show)
