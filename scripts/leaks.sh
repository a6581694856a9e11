#!/usr/bin/env bash
# Host resources with this project's mark, one a line: processes, mounts, cgroups, loop devices, network namespaces,
# files in TMPDIR. run-tests.sh lists them before and after; what is new was leaked.
set -euo pipefail

for exe in /proc/[0-9]*/exe; do
  path=$(readlink "$exe" 2>/dev/null) || continue
  case $path in
    *faas-gateway-server* | *faas-guest* | *faas-bench* | */.faas/agent)
      pid=${exe#/proc/}
      echo "process ${pid%/exe} $path"
      ;;
    */postgres)
      pid=${exe#/proc/}
      command=$({ tr '\0' ' ' <"/proc/${pid%/exe}/cmdline"; } 2>/dev/null) || continue
      case $command in *faas*) echo "process ${pid%/exe} $command" ;; esac
      ;;
    */dockerd | */containerd* | */docker-registry | */runc)
      pid=${exe#/proc/}
      command=$({ tr '\0' ' ' <"/proc/${pid%/exe}/cmdline"; } 2>/dev/null) || continue
      case $command in *faas*) echo "process ${pid%/exe} $command" ;; esac
      ;;
  esac
done
awk '/faas/ { print "mount " $5 " " $0 }' /proc/self/mountinfo
find /sys/fs/cgroup -type d \( -name 'faas*' -o -name 'test-engine-*' \) -printf 'cgroup %p\n' 2>/dev/null || [ ! -d /sys/fs/cgroup ]
for file in /sys/block/loop*/loop/backing_file; do
  [ -r "$file" ] || continue
  backing=$(cat "$file" 2>/dev/null) || continue
  case $backing in *faas*) echo "loop device ${file%/loop/backing_file} $backing" ;; esac
done
for name in /run/netns/* /var/run/netns/*; do
  case $name in *faas*) echo "network namespace $name" ;; esac
done
find "${TMPDIR:-/tmp}" -maxdepth 1 \( -name 'faas*' -o -name '.tmp*' \) -printf 'directory %p\n'
