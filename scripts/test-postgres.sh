#!/usr/bin/env bash
# A PostgreSQL server for tests, apart from any other on the machine: data, socket and log in a directory of its own,
# no TCP port.
#
#   scripts/test-postgres.sh start DIR   makes it, where it is not there yet, and starts it; prints its URL
#   scripts/test-postgres.sh url DIR     prints its URL
#   scripts/test-postgres.sh halt DIR    ends it and keeps its data
#   scripts/test-postgres.sh kill DIR    kills all its processes at once and keeps its data
#   scripts/test-postgres.sh stop DIR    ends it and removes DIR
#
# It runs as the user `postgres`, or `nobody` where there is none, since it refuses to run as root; that user must be
# able to get to DIR. Whoever can reach its socket is let in.
set -euo pipefail

usage() {
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

[ $# -eq 2 ] || usage
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
# The socket's name in it is 19 bytes long, and paths of sockets have 107 (unix(7)).
[ ${#dir} -le 80 ] || { echo "$dir is too long a path for the socket in it" >&2; exit 64; }

# Debian has the programs outside of PATH, by version.
find_programs() {
  if command -v initdb >/dev/null; then
    programs=$(dirname "$(readlink -f "$(command -v initdb)")")
    return
  fi
  programs=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1)
  [ -x "$programs/initdb" ] || { echo "PostgreSQL is not installed (Debian: postgresql)" >&2; exit 1; }
}

as_server() {
  if [ "$(id -u)" != 0 ]; then
    "$@"
    return
  fi
  local user=postgres
  id "$user" >/dev/null 2>&1 || user=nobody
  (cd / && exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups "$@")
}

url() { echo "postgres://postgres@localhost/postgres?host=$dir"; }

# The server's process, if it runs: the number in its file may be somebody else's by now.
server_pid() {
  local pid
  pid=$(head -1 "$dir/data/postmaster.pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q -- "$dir/data" || return 1
  echo "$pid"
}

# Waits until none of these processes is there any more; reads their ids, one a line.
await_end() {
  local pid tries
  while read -r pid; do
    for ((tries = 0; tries < 600; tries++)); do
      [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || break
      sleep 0.05
    done
  done
}

start() {
  find_programs
  if [ ! -f "$dir/data/PG_VERSION" ]; then
    # Its parent is left as it is: that may be the caller's alone.
    if [ "$(id -u)" = 0 ]; then chown "$(id -u postgres 2>/dev/null || id -u nobody)" "$dir"; fi
    as_server "$programs/initdb" --pgdata "$dir/data" --username postgres --auth trust --encoding UTF8 \
      --locale C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
  fi
  if ! server_pid >/dev/null; then
    # Those of a killed server keep the next one from starting as long as nobody has reaped it.
    rm -f "$dir/data/postmaster.pid" "$dir"/.s.PGSQL.*
    # pg_ctl comes back when the server takes connections. It is this script's child and nobody's afterwards.
    as_server "$programs/pg_ctl" start --wait --timeout 60 --silent --pgdata "$dir/data" --log "$dir/log" \
      --options "-c listen_addresses='' -c unix_socket_directories='$dir' -c max_connections=200" </dev/null >/dev/null 2>&1 ||
      { echo "PostgreSQL did not start:" >&2; tail -20 "$dir/log" >&2; exit 1; }
  fi
  url
}

halt() {
  local pid
  pid=$(server_pid) || return 0
  # SIGINT: a fast shutdown, which ends what is connected (the documentation, "Shutting Down the Server").
  kill -INT "$pid"
  echo "$pid" | await_end
}

kill_all() {
  local pid children
  pid=$(server_pid) || { echo "it does not run" >&2; exit 1; }
  # Stopped first, so that it starts no more of them. Each is in a session of its own, with the server as its parent.
  kill -STOP "$pid"
  children=$(cat "/proc/$pid/task/$pid/children")
  # shellcheck disable=SC2086
  kill -KILL $pid $children
  printf '%s\n' "$pid" $children | await_end
}

case $verb in
  start) start ;;
  url) url ;;
  halt) halt ;;
  kill) kill_all ;;
  stop)
    halt
    rm -rf "$dir"
    ;;
  *) usage ;;
esac
