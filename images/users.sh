#!/usr/bin/env bash
# config: ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# config: ENV GREETING=hello
# config: WORKDIR /var
# config: USER app
# config: ENTRYPOINT ["/no/such/entrypoint"]
set -euo pipefail
exec "$(dirname "$0")/alpine.sh" "$1"
