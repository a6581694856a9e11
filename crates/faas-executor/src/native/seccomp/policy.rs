//! Which syscalls a sandbox may make: the set of Docker's default profile for the capabilities that a sandbox keeps
//! (`CAP_SYS_CHROOT` among them, `CAP_SYS_ADMIN` not), less io_uring, `io_setup`, the LDT, huge pages and most families
//! of sockets.
//!
//! What is not named fails with EPERM; a syscall newer than this list with ENOSYS, so that programs fall back to what
//! they did before it (as runc does). `clone3` fails with ENOSYS, since its flags cannot be looked at.

use super::program::{Action, Rules};

/// Namespace flags of clone(2): `CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET`.
const NAMESPACES: u32 = 0x7e02_0000;

/// The first number that this list does not know (after `file_setattr`, Linux 6.17).
const FIRST_UNKNOWN: u32 = 470;

/// The same on all architectures; libc has it as one type or another.
const RLIMIT_CORE: u32 = 4;

/// Of the kernel's headers linux/mman.h, linux/memfd.h and linux/shm.h.
const MAP_HUGETLB: u32 = 0x4_0000;
const MFD_HUGETLB: u32 = 4;
const SHM_HUGETLB: u32 = 0o4000;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the native runtime has no seccomp policy for this architecture");

pub(super) fn rules() -> Rules {
    let mut actions = vec![Action::Errno(libc::EPERM); FIRST_UNKNOWN as usize];
    let mut set = |nr: i64, action| {
        let nr = usize::try_from(nr).expect("syscall numbers are not negative");
        actions[nr] = action;
    };
    for nr in ALLOWED.iter().chain(ALLOWED_HERE) {
        set(*nr, Action::Allow);
    }
    // AF_UNIX, AF_INET, AF_INET6, and NETLINK_ROUTE of AF_NETLINK, which tells of interfaces. No others: rings of
    // AF_PACKET and AF_XDP, and what waits in other netlink sockets, is memory that no limit counts, AF_VSOCK reaches
    // the hypervisor, and the rest is attack surface.
    set(libc::SYS_socket, Action::Families(&[1, 2, 10], 16));
    set(libc::SYS_socketpair, Action::AllowIfArg0(&[1]));
    // The host's reserved huge pages, which no limit counts either: as of a kernel that has none left.
    let huge = |arg, bits, errno| Action::ErrnoIfArgHas { arg, bits, errno };
    set(libc::SYS_mmap, huge(3, MAP_HUGETLB, libc::ENOMEM));
    set(libc::SYS_memfd_create, huge(1, MFD_HUGETLB, libc::EINVAL));
    set(libc::SYS_shmget, huge(2, SHM_HUGETLB, libc::ENOMEM));
    // Contexts of all sandboxes and of the host count against one number of the host's (fs.aio-max-nr). Programs that
    // would use them do without where the kernel has none.
    set(libc::SYS_io_setup, Action::Errno(libc::ENOSYS));
    // PER_LINUX, PER_LINUX32, UNAME26, both, and the query.
    set(libc::SYS_personality, Action::AllowIfArg0(&[0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff]));
    // At 1 the kernel starts no handler of cores; at 0 it would (see RLIMITS of the launcher's child).
    set(libc::SYS_prlimit64, Action::NothingIfItSets(RLIMIT_CORE));
    #[cfg(target_arch = "x86_64")]
    set(libc::SYS_setrlimit, Action::NothingIfArg0(RLIMIT_CORE));
    set(libc::SYS_clone, Action::AllowIfArg0Lacks(NAMESPACES));
    set(libc::SYS_clone3, Action::Errno(libc::ENOSYS));

    let mut ranges: Vec<(u32, Action)> = Vec::new();
    for (nr, action) in (0u32..).zip(actions) {
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((nr, action));
        }
    }
    ranges.push((FIRST_UNKNOWN, Action::Errno(libc::ENOSYS)));
    Rules { arch: AUDIT_ARCH, ranges }
}

/// Calls that libc does not name. From 424 on numbers are the same on all architectures.
mod nr {
    #[cfg(target_arch = "x86_64")]
    pub(super) const IO_PGETEVENTS: i64 = 333;
    #[cfg(target_arch = "aarch64")]
    pub(super) const IO_PGETEVENTS: i64 = 292;
    pub(super) const CACHESTAT: i64 = 451;
    pub(super) const FCHMODAT2: i64 = 452;
    pub(super) const MAP_SHADOW_STACK: i64 = 453;
    pub(super) const FUTEX_WAKE: i64 = 454;
    pub(super) const FUTEX_WAIT: i64 = 455;
    pub(super) const FUTEX_REQUEUE: i64 = 456;
    pub(super) const LSM_GET_SELF_ATTR: i64 = 459;
    pub(super) const LSM_LIST_MODULES: i64 = 461;
    pub(super) const MSEAL: i64 = 462;
    pub(super) const SETXATTRAT: i64 = 463;
    pub(super) const GETXATTRAT: i64 = 464;
    pub(super) const LISTXATTRAT: i64 = 465;
    pub(super) const REMOVEXATTRAT: i64 = 466;
}

#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_adjtimex, libc::SYS_bind, libc::SYS_brk, libc::SYS_capget,
    libc::SYS_capset, libc::SYS_chdir, libc::SYS_clock_adjtime, libc::SYS_clock_getres,
    libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_connect, libc::SYS_copy_file_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_execve,
    libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_fadvise64, libc::SYS_fallocate, libc::SYS_fanotify_mark, libc::SYS_fchdir, libc::SYS_fchmod,
    libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_fcntl, libc::SYS_fdatasync,
    libc::SYS_fgetxattr, libc::SYS_flistxattr, libc::SYS_flock, libc::SYS_fremovexattr, libc::SYS_fsetxattr,
    libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_futex,
    libc::SYS_futex_waitv, libc::SYS_getcpu, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_getegid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getgroups, libc::SYS_getitimer, libc::SYS_getpeername,
    libc::SYS_getpgid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getpriority, libc::SYS_getrandom,
    libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_get_robust_list, libc::SYS_getrusage, libc::SYS_getsid,
    libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_getuid,
    libc::SYS_getxattr, libc::SYS_inotify_add_watch, libc::SYS_inotify_init1, libc::SYS_inotify_rm_watch,
    libc::SYS_io_cancel, libc::SYS_ioctl, libc::SYS_io_destroy, libc::SYS_io_getevents,
    nr::IO_PGETEVENTS, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_io_submit, libc::SYS_kill, libc::SYS_landlock_add_rule, libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self, libc::SYS_lgetxattr, libc::SYS_linkat, libc::SYS_listen,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_lremovexattr, libc::SYS_lseek, libc::SYS_lsetxattr,
    libc::SYS_madvise, libc::SYS_membarrier, libc::SYS_memfd_secret, libc::SYS_mincore,
    libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall,
    libc::SYS_mprotect, libc::SYS_mq_getsetattr, libc::SYS_mq_notify, libc::SYS_mq_open,
    libc::SYS_mq_timedreceive, libc::SYS_mq_timedsend, libc::SYS_mq_unlink, libc::SYS_mremap, libc::SYS_msgctl,
    libc::SYS_msgget, libc::SYS_msgrcv, libc::SYS_msgsnd, libc::SYS_msync, libc::SYS_munlock,
    libc::SYS_munlockall, libc::SYS_munmap, libc::SYS_name_to_handle_at, libc::SYS_nanosleep,
    libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_pipe2, libc::SYS_pkey_alloc, libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect, libc::SYS_ppoll, libc::SYS_prctl, libc::SYS_pread64, libc::SYS_preadv,
    libc::SYS_preadv2, libc::SYS_prlimit64, libc::SYS_process_mrelease, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_pselect6, libc::SYS_ptrace, libc::SYS_pwrite64, libc::SYS_pwritev,
    libc::SYS_pwritev2, libc::SYS_read, libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv,
    libc::SYS_recvfrom, libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_remap_file_pages,
    libc::SYS_removexattr, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_restart_syscall, libc::SYS_rseq,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_getaffinity, libc::SYS_sched_getattr, libc::SYS_sched_getparam,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval, libc::SYS_sched_setaffinity, libc::SYS_sched_setattr,
    libc::SYS_sched_setparam, libc::SYS_sched_setscheduler, libc::SYS_sched_yield, libc::SYS_seccomp,
    libc::SYS_semctl, libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_sendfile,
    libc::SYS_sendmmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_setfsgid, libc::SYS_setfsuid,
    libc::SYS_setgid, libc::SYS_setgroups, libc::SYS_setitimer, libc::SYS_setpgid, libc::SYS_setpriority,
    libc::SYS_setregid, libc::SYS_setresgid, libc::SYS_setresuid, libc::SYS_setreuid,
    libc::SYS_set_robust_list, libc::SYS_setsid, libc::SYS_setsockopt, libc::SYS_set_tid_address,
    libc::SYS_setuid, libc::SYS_setxattr, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt, 
    libc::SYS_shutdown, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_splice,
    libc::SYS_statfs, libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync, libc::SYS_sync_file_range,
    libc::SYS_syncfs, libc::SYS_sysinfo, libc::SYS_tee, libc::SYS_tgkill, libc::SYS_timer_create,
    libc::SYS_timer_delete, libc::SYS_timer_getoverrun, libc::SYS_timer_gettime, libc::SYS_timer_settime,
    libc::SYS_timerfd_create, libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime, libc::SYS_times,
    libc::SYS_tkill, libc::SYS_truncate, libc::SYS_umask, libc::SYS_uname, libc::SYS_unlinkat,
    libc::SYS_utimensat, libc::SYS_vmsplice, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_write,
    libc::SYS_writev, libc::SYS_chroot, nr::CACHESTAT, nr::FCHMODAT2, nr::MAP_SHADOW_STACK, nr::FUTEX_WAKE,
    nr::FUTEX_WAIT, nr::FUTEX_REQUEUE, nr::LSM_GET_SELF_ATTR, nr::LSM_LIST_MODULES, nr::MSEAL, nr::SETXATTRAT,
    nr::GETXATTRAT, nr::LISTXATTRAT, nr::REMOVEXATTRAT,
];

/// Calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown, libc::SYS_creat,
    libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_ctl_old, libc::SYS_epoll_wait,
    libc::SYS_epoll_wait_old, libc::SYS_eventfd, libc::SYS_fork, libc::SYS_futimesat,
    libc::SYS_get_thread_area, libc::SYS_getdents, libc::SYS_getpgrp, libc::SYS_getrlimit,
    libc::SYS_inotify_init, libc::SYS_lchown, libc::SYS_link, libc::SYS_lstat, libc::SYS_mkdir,
    libc::SYS_mknod, libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink,
    libc::SYS_rename, libc::SYS_rmdir, libc::SYS_select, libc::SYS_set_thread_area, libc::SYS_setrlimit,
    libc::SYS_signalfd, libc::SYS_stat, libc::SYS_symlink, libc::SYS_time, libc::SYS_unlink, libc::SYS_utime,
    libc::SYS_utimes, libc::SYS_vfork,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::{Action, rules};

    fn action(nr: i64) -> Action {
        let rules = rules();
        let nr = u32::try_from(nr).unwrap();
        rules.ranges.iter().rev().find(|(first, _)| *first <= nr).unwrap().1
    }

    #[test]
    fn what_could_undo_the_isolation_is_refused() {
        for nr in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_open_by_handle_at,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_mount_setattr,
            libc::SYS_pidfd_getfd,
            libc::SYS_syslog,
        ] {
            assert_eq!(action(nr), Action::Errno(libc::EPERM), "syscall {nr}");
        }
    }

    #[test]
    fn what_no_limit_counts_is_refused() {
        assert_eq!(action(libc::SYS_socket), Action::Families(&[1, 2, 10], 16));
        assert_eq!(action(libc::SYS_socketpair), Action::AllowIfArg0(&[1]));
        assert_eq!(action(libc::SYS_io_setup), Action::Errno(libc::ENOSYS));
        for nr in [libc::SYS_mmap, libc::SYS_memfd_create, libc::SYS_shmget] {
            assert!(matches!(action(nr), Action::ErrnoIfArgHas { .. }), "{nr}");
        }
    }

    #[test]
    fn what_a_checkpoint_needs_is_allowed() {
        // checkpoint: CRIU's parasite moves pages with vmsplice.
        assert_eq!(action(libc::SYS_vmsplice), Action::Allow);
        assert_eq!(action(libc::SYS_ptrace), Action::Allow);
    }

    #[test]
    fn newer_syscalls_and_clone3_look_as_if_the_kernel_did_not_have_them() {
        assert_eq!(action(libc::SYS_clone3), Action::Errno(libc::ENOSYS));
        assert_eq!(action(5000), Action::Errno(libc::ENOSYS));
        // The x32 numbers of x86-64.
        assert_eq!(action(0x4000_0000), Action::Errno(libc::ENOSYS));
    }
}
