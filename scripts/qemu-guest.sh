#!/usr/bin/env bash
# Runs a command in a virtual machine with cgroup v2: Debian's cloud kernel and a small Debian, in QEMU's software
# emulation, so that no KVM is needed. For what the machine at hand does not have.
#
# Usage: scripts/qemu-guest.sh CACHE PAYLOAD COMMAND
#
# PAYLOAD is a directory whose content appears below / of the guest; COMMAND is run there by bash as root, its output
# goes to standard output, its exit code is this script's. Kernel and system are made once and kept in CACHE.
set -euo pipefail
[ $# = 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 64; }
cache=$1/qemu
payload=$2
command=$3

# The guest's packages. What run-tests.sh wants of a machine, less compilers.
packages=python3,mount,hostname,e2fsprogs,runc,busybox-static,git,mawk,util-linux,procps,iproute2,kmod,uidmap,perl,passwd,bubblewrap,nodejs
packages=$packages,apache2-utils,curl,golang-github-containers-common,xz-utils,zstd,skopeo,umoci,docker-registry
packages=$packages,ca-certificates,vim-tiny
timeout_s=${FAAS_QEMU_TIMEOUT_S:-6600}
memory_mb=${FAAS_QEMU_MEMORY_MB:-6144}

work=$(mktemp -d "${TMPDIR:-/tmp}/faas-qemu.XXXXXX")
trap 'rm -rf "$work"' EXIT

install_tools() {
  local missing=()
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
  command -v modprobe >/dev/null || missing+=(kmod)
  command -v cpio >/dev/null || missing+=(cpio)
  [ -x /usr/sbin/mke2fs ] || missing+=(e2fsprogs)
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing: ${missing[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# A package of the kernel itself, not the one that only names the newest.
fetch_kernel() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -1)
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package")
  dpkg -x "$work/$package"_*.deb "$work/kernel"
}

# An initramfs that loads the drivers of the disk and goes on from it.
make_initrd() {
  local version=$1 module file
  mkdir -p "$work/initrd"/{bin,mods,dev,proc,sys,root}
  cp /bin/busybox "$work/initrd/bin/"
  for module in virtio_pci virtio_blk; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | while read -r _ file _; do
      cp "$file" "$work/initrd/mods/"
      basename "$file" >>"$work/initrd/mods/order"
    done
  done
  cat >"$work/initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
while read module; do /bin/busybox insmod /mods/$module 2>/dev/null; done </mods/order
i=0
while [ ! -b /dev/vdc ] && [ $i -lt 300 ]; do /bin/busybox sleep 0.1; i=$((i + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root
for dir in dev proc sys; do /bin/busybox mount -o move /$dir /root/$dir; done
exec /bin/busybox switch_root /root /guest-init
INIT
  chmod +x "$work/initrd/init"
  (cd "$work/initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/base/initrd"
}

make_root() {
  local version=$1
  mmdebstrap --quiet --variant=apt --include="$packages" bookworm "$work/root.tar"
  mkdir "$work/root"
  tar -xf "$work/root.tar" -C "$work/root"
  mkdir -p "$work/root/lib/modules" "$work/root/payload"
  cp -a "$work/kernel/lib/modules/$version" "$work/root/lib/modules/"
  cat >"$work/root/guest-init" <<'INIT'
#!/bin/bash
# The guest's first process.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
for module in loop overlay; do modprobe "$module"; done
ip link set lo up
hostname guest
mount -t ext4 -o ro /dev/vdb /payload
# Copied, since programs and their paths must be able to change.
cp -a /payload/. / && echo "GUEST-BEGIN $(uname -r)"
tr -d '\0' </dev/vdc >/run/command
(bash /run/command)
echo "GUEST-EXIT $?"
sync
echo o >/proc/sysrq-trigger
sleep 60
INIT
  chmod +x "$work/root/guest-init"
  /usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal -d "$work/root" "$work/base/root.img" 16G
}

make_base() {
  mkdir "$work/base"
  fetch_kernel
  local version
  version=$(basename "$work"/kernel/lib/modules/*)
  depmod -b "$work/kernel" "$version"
  cp "$work/kernel/boot/vmlinuz-$version" "$work/base/kernel"
  make_initrd "$version"
  make_root "$version"
}

install_tools
key=$(sha256sum "$0" | cut -c1-16)
base=$cache/$key
if [ ! -d "$base" ]; then
  echo "making the guest's system"
  rm -rf "$cache"
  mkdir -p "$cache"
  make_base
  mv "$work/base" "$base"
fi

mkdir -p "$work/payload"
size_kb=$(du -sk "$payload" | cut -f1)
/usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal -d "$payload" "$work/payload.img" $((size_kb + size_kb / 4 + 65536))k
# A disk of its own for the command, so that the payload itself stays as it is.
printf '%s\n' "$command" >"$work/command.img"
truncate -s %4096 "$work/command.img"

timeout --kill-after=10 "$timeout_s" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory_mb" \
  -display none -serial stdio -monitor none -no-reboot -nic none \
  -kernel "$base/kernel" -initrd "$base/initrd" -append "console=ttyS0 quiet panic=-1" \
  -drive "file=$base/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe" \
  -drive "file=$work/payload.img,if=virtio,format=raw,readonly=on" \
  -drive "file=$work/command.img,if=virtio,format=raw,readonly=on" </dev/null |
  sed -u 's/\r$//' | tee "$work/console" | sed -u -n "/^GUEST-BEGIN/,\$p"
code=$(sed -n 's/^GUEST-EXIT //p' "$work/console" | tail -1)
if [ -z "$code" ]; then
  echo "the guest did not come to its end; the last it said:"
  tail -20 "$work/console"
  exit 1
fi
exit "$code"
