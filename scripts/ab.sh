#!/usr/bin/env bash
# The line of docs/load-testing.md against the server at FAAS_BASE_URL; fails on any answer that failed or is not 2xx.
set -euo pipefail
cd "$(dirname "$0")/.."
address=${FAAS_BASE_URL:-http://localhost:8080}
said=$(ab -l -n "${FAAS_AB_REQUESTS:-1000}" -c 10 -p payload.json -T application/json "$address/api/v1/execute" 2>&1) || {
  echo "$said"
  exit 1
}
echo "$said"
grep -Eq '^Complete requests: +'"${FAAS_AB_REQUESTS:-1000}"'$' <<<"$said" || { echo "ab: not all requests were completed" >&2; exit 1; }
grep -Eq '^Failed requests: +0$' <<<"$said" || { echo "ab: requests failed" >&2; exit 1; }
! grep -E '^(Non-2xx responses|Write errors): +[1-9]' <<<"$said" || { echo "ab: not all answers were 2xx" >&2; exit 1; }
