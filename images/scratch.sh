#!/usr/bin/env bash
# config: LABEL made-by=faas
# One static program that echoes its arguments and standard input: no shell, no directories, no users.
set -euo pipefail
archive=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
gcc -static -Os -o "$root/echo" -x c - <<'CODE'
#include <stdio.h>
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) printf("%s%s", i > 1 ? " " : "", argv[i]);
  putchar('\n');
  for (int c; (c = getchar()) != EOF;) putchar(c);
  return 0;
}
CODE
strip "$root/echo"
tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$archive" echo
