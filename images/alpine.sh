#!/usr/bin/env bash
# config: ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# config: CMD ["/bin/sh"]
set -euo pipefail
archive=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
busybox=$(command -v busybox)
mkdir -p "$root"/{bin,etc,home,root,tmp,usr/bin,var}
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cat >"$root/etc/passwd" <<'TEXT'
root:x:0:0:root:/root:/bin/sh
daemon:x:2:2:daemon:/sbin:/sbin/nologin
app:x:1000:1000:app:/home:/bin/sh
nobody:x:65534:65534:nobody:/:/sbin/nologin
TEXT
cat >"$root/etc/group" <<'TEXT'
root:x:0:
daemon:x:2:
audio:x:29:app
app:x:1000:
nobody:x:65534:
TEXT
tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$archive" .
