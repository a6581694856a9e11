#!/usr/bin/env bash
# A Docker engine for tests, apart from any other on the machine, with images that are made here (images/).
#
#   scripts/test-engine.sh start DIR [IMAGE...]   starts it; IMAGE is a recipe's name, all of them when none is given
#   scripts/test-engine.sh stop DIR               ends it and all that it runs, and removes DIR and its cgroups
#
# The lines of a file DIR/options are further options of dockerd.
#
# It listens at unix://DIR/docker.sock. Archives of images are kept in $FAAS_CACHE_DIR/images (default:
# $XDG_CACHE_HOME/faas-tests or ~/.cache/faas-tests). `start` of a running engine only sees to its images; `restart DIR`
# ends it, if nobody has yet, with whatever a killed one left, and starts it again.
#
# Everything of an engine is in cgroups of its own (v1, v2 and hybrid): that is how what has lost its parent is found.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
shift 2
[ "$(id -u)" = 0 ] || { echo "an engine is started by root alone" >&2; exit 1; }
# containerd.sock.ttrpc below it is the longest of the sockets' paths, which have 107 bytes (unix(7)).
[ ${#dir} -le 69 ] || { echo "$dir is too long a path for the sockets in it" >&2; exit 64; }

have() { command -v "$1" >/dev/null 2>&1; }

provision() {
  local packages=()
  have dockerd || packages+=(docker.io)
  have docker || packages+=(docker.io)
  have busybox || packages+=(busybox-static)
  have mmdebstrap || packages+=(mmdebstrap)
  have gcc || packages+=(gcc libc6-dev)
  # For the tests of TLS.
  have openssl || packages+=(openssl)
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

# The name of the engine's cgroups: its own process is in `engine` below it, each container beside that.
group=test-engine-$(printf %s "$dir" | sha256sum | cut -c1-12)

# Where the hierarchies are mounted (proc_pid_mountinfo(5)).
hierarchies() {
  awk '{ for (i = 7; i < NF; i++) if ($i == "-") { if ($(i + 1) ~ /^cgroup2?$/) print $5; next } }' /proc/self/mountinfo
}

# The engine's cgroups and all below them.
groups() {
  local mount
  hierarchies | while read -r mount; do find "$mount/$group" -depth -type d 2>/dev/null || true; done
}

# Moves the calling process to the engine's cgroups. A hierarchy that takes no process as it is (cpuset) is left out.
enter_group() {
  local mount entered=
  for mount in $(hierarchies); do
    mkdir -p "$mount/$group/engine" 2>/dev/null || continue
    if { echo "$BASHPID" >"$mount/$group/engine/cgroup.procs"; } 2>/dev/null; then entered=yes; fi
  done
  [ -n "$entered" ] || { echo "no cgroup can be made here" >&2; exit 1; }
}

# Kills everything in the engine's cgroups and removes them.
clear_group() {
  local tries found cgroup pid
  for ((tries = 0; tries < 200; tries++)); do
    found=
    while read -r cgroup; do
      # What is frozen does not die (v1).
      if [ -f "$cgroup/freezer.state" ]; then echo THAWED >"$cgroup/freezer.state" 2>/dev/null || true; fi
      while read -r pid; do
        # 0 stands for a process that cannot be seen from here.
        if [ "$pid" = 0 ]; then continue; fi
        found=yes
        kill -KILL "$pid" 2>/dev/null || true
      done < <(cat "$cgroup/cgroup.procs" 2>/dev/null || true)
    done < <(groups)
    if [ -z "$found" ]; then
      groups | while read -r cgroup; do rmdir "$cgroup" 2>/dev/null || true; done
      [ -n "$(groups)" ] || return 0
    fi
    sleep 0.05
  done
  echo "cgroups of the engine are left:" >&2
  groups >&2
  exit 1
}

start() {
  if ! engine_pid >/dev/null; then
    # What a killed engine left keeps the next one from starting, or would outlive it.
    clear_group
    rm -f "$dir/docker.sock" "$dir/pid" "$dir"/exec/containerd/containerd.{pid,sock,sock.ttrpc}
    local options=()
    if [ -f "$dir/options" ]; then mapfile -t options <"$dir/options"; fi
    (
      enter_group
      exec setsid dockerd -H "unix://$dir/docker.sock" --data-root "$dir/data" --exec-root "$dir/exec" \
        -p "$dir/pid" --bridge none --iptables=false --exec-opt native.cgroupdriver=cgroupfs \
        --cgroup-parent "/$group" "${options[@]}"
    ) >>"$dir/log" 2>&1 </dev/null &
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
      node) name=node tag=18-slim ;;
      *) name=$recipe tag=latest ;;
    esac
    docker image inspect "$name:$tag" >/dev/null 2>&1 && continue
    local source=$top/images/$recipe.sh archive
    archive=$("$top/images/archive.sh" "$recipe")
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
  clear_group
  # The deepest first.
  awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    while read -r mount; do umount -l "$mount" 2>/dev/null || true; done
  rm -rf "$dir"
}

case $verb in
  start)
    provision
    start
    if [ $# = 0 ]; then set -- alpine scratch users python node; fi
    import_images "$@"
    ;;
  restart)
    end_engine
    start
    ;;
  stop) stop ;;
  *) usage ;;
esac
