#!/usr/bin/env bash
# Prints the archive that a recipe makes; makes it where there is none yet.
#
#   images/archive.sh RECIPE
#
# Archives are kept in $FAAS_CACHE_DIR/images (default: $XDG_CACHE_HOME/faas-tests or ~/.cache/faas-tests).
set -euo pipefail

images=$(cd "$(dirname "$0")" && pwd)
cache=${FAAS_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/faas-tests}/images
[ $# = 1 ] || { sed -n '4p' "$0" >&2; exit 64; }
source=$images/$1.sh
[ -x "$source" ] && [ "$1" != archive ] || { echo "there is no recipe images/$1.sh" >&2; exit 64; }

# The recipe's own text, and that of the one it may call, name the archive.
archive=$cache/$1-$(cat "$source" "$images/alpine.sh" | sha256sum | cut -c1-16).tar
mkdir -p "$cache"
# One at a time makes it; the lock goes with its last descriptor, so what the recipe starts does not get it.
exec 9>"$archive.lock"
flock 9
if [ ! -f "$archive" ]; then
  echo "making $1" >&2
  rm -rf "$archive.new"
  "$source" "$archive.new" >&2 9>&-
  mv "$archive.new" "$archive"
fi
echo "$archive"
