#!/usr/bin/env bash
# config: ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
# config: CMD ["python3"]
# Debian with its Python, from the archive that apt uses on this machine.
set -euo pipefail
archive=$1
command -v mmdebstrap >/dev/null || { echo "python.sh needs mmdebstrap" >&2; exit 1; }
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mmdebstrap --quiet --format=tar --variant=minbase --include=python3,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook='ln -s ../../bin/python3 "$1/usr/local/bin/python"' \
  "$codename" "$archive"
