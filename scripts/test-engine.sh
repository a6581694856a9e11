#!/usr/bin/env bash
# A Docker engine for tests, apart from any other on the machine, with images that are made here (images/).
#
#   scripts/test-engine.sh start DIR [IMAGE...]   starts it; IMAGE is a recipe's name, all of them when none is given
#   scripts/test-engine.sh stop DIR               ends it and all that it runs, and removes DIR
#
# It listens at unix://DIR/docker.sock. Archives of images are kept in $FAAS_CACHE_DIR/images (default:
# $XDG_CACHE_HOME/faas-tests or ~/.cache/faas-tests). `start` of a running engine only sees to its images; `restart DIR`
# ends it, if nobody has yet, and starts it again.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cache=${FAAS_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}/images

usage() {
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
[ "$(id -u)" = 0 ] || { echo "an engine is started by root alone" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

provision() {
  local packages=()
  have dockerd || packages+=(docker.io)
  have docker || packages+=(docker.io)
  have busybox || packages+=(busybox-static)
  have mmdebstrap || packages+=(mmdebstrap)
  have gcc || packages+=(gcc libc6-dev)
  # For the tests that fetch images.
  have docker-registry || packages+=(docker-registry)
  have htpasswd || packages+=(apache2-utils)
  [ ${#packages[@]} -gt 0 ] || return 0
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
}

docker() { command docker --host "unix://$dir/docker.sock" "$@"; }

answers() { timeout 5 "$(type -P docker)" --host "unix://$dir/docker.sock" version >/dev/null 2>&1; }

# The command line of a process, or nothing.
command_line() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true; }

# The engine's process, if it runs: the number in its file may be somebody else's by now.
engine_pid() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) || return 1
  command_line "$pid" | grep -q -- "$dir/docker.sock" || return 1
  echo "$pid"
}

start() {
  if ! engine_pid >/dev/null; then
    # A socket or a number that a killed engine left keeps the next one from starting.
    rm -f "$dir/docker.sock" "$dir/pid"
    local containerd=$dir/exec/containerd/containerd
    if ! command_line "$(cat "$containerd.pid" 2>/dev/null || echo none)" | grep -q "^containerd .*$dir/"; then
      rm -f "$containerd".{pid,sock,sock.ttrpc}
    fi
    setsid dockerd -H "unix://$dir/docker.sock" --data-root "$dir/data" --exec-root "$dir/exec" -p "$dir/pid" \
      --bridge none --iptables=false >>"$dir/log" 2>&1 </dev/null &
    local engine=$! tries
    for ((tries = 0; tries < 600; tries++)); do
      answers && break
      kill -0 "$engine" 2>/dev/null || break
      sleep 0.1
    done
    answers || { echo "the engine did not start:" >&2; tail -20 "$dir/log" >&2; exit 1; }
  fi
}

# Makes what is missing of the images that were asked for.
import_images() {
  local recipe name tag changes
  for recipe in "$@"; do
    case $recipe in
      python) name=python tag=3.11-slim ;;
      *) name=$recipe tag=latest ;;
    esac
    docker image inspect "$name:$tag" >/dev/null 2>&1 && continue
    local source=$top/images/$recipe.sh
    [ -x "$source" ] || { echo "there is no recipe images/$recipe.sh" >&2; exit 64; }
    # The recipe's own text, and that of the one it may call, name the archive.
    local archive
    archive=$cache/$recipe-$(cat "$source" "$top/images/alpine.sh" | sha256sum | cut -c1-16).tar
    if [ ! -f "$archive" ]; then
      mkdir -p "$cache"
      echo "making $recipe" >&2
      rm -rf "$archive.new"
      "$source" "$archive.new" >&2
      mv "$archive.new" "$archive"
    fi
    changes=()
    while read -r line; do changes+=(--change "$line"); done < <(sed -n 's/^# config: //p' "$source")
    docker import "${changes[@]}" "$archive" "$name:$tag" >/dev/null
  done
}

# Ends the engine's process, if it runs.
end_engine() {
  local pid tries
  pid=$(engine_pid) || return 0
  kill "$pid" 2>/dev/null || true
  for ((tries = 0; tries < 300; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

stop() {
  end_engine
  # What a killed engine leaves: its containerd and the shims of containers, all of which name the directory.
  local proc
  for proc in /proc/[0-9]*; do
    if command_line "${proc#/proc/}" | grep -Eq "^(containerd|[^ ]*/?containerd-shim[^ ]*|[^ ]*docker-proxy) .*$dir/"; then
      kill -KILL "${proc#/proc/}" 2>/dev/null || true
    fi
  done
  sleep 0.2
  # The deepest first.
  awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  rm -rf "$dir"
}

case $verb in
  start)
    provision
    start
    if [ $# = 0 ]; then set -- alpine scratch users python; fi
    import_images "$@"
    ;;
  restart)
    end_engine
    start
    ;;
  stop) stop ;;
  *) usage ;;
esac
