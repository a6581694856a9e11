#!/usr/bin/env bash
# config: ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# config: CMD ["node"]
# Debian with its Node, from the archive that apt uses on this machine.
set -euo pipefail
archive=$1
command -v mmdebstrap >/dev/null || { echo "node.sh needs mmdebstrap" >&2; exit 1; }
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mmdebstrap --quiet --format=tar --variant=minbase --include=nodejs,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='ln -s ../../bin/node "$1/usr/local/bin/node"' \
  "$codename" "$archive"
