//! Landlock (Documentation/userspace-api/landlock.rst), where the kernel has it.
//!
//! The mount namespace already decides which files there are. What a ruleset adds: a process under one can never
//! change mounts, trace a process outside its domain, or - from ABI 6 on - signal one or reach one over an abstract
//! Unix socket, should it get hold of one in some other way. What it says of files allows
//! all that there is.

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::message::Failure;

/// The newest interface that this code knows; an older kernel enforces what it has.
const KNOWN: ABI = ABI::V6;

/// A ruleset handles something of files or it holds back no mounts. Making block devices is what it costs least to have
/// looked after, and moving between directories is refused unless it is handled and allowed. More would refuse what has
/// no path from the root: POSIX message queues.
fn handled() -> BitFlags<AccessFs> {
    AccessFs::MakeBlock | AccessFs::Refer
}

/// `LANDLOCK_CREATE_RULESET_VERSION` of the kernel's linux/landlock.h.
const CREATE_RULESET_VERSION: u32 = 1;

/// Puts the calling process under the sandbox's ruleset. Sets `no_new_privs` as a side effect.
pub(super) fn restrict() -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure { step: format!("landlock: {error}"), errno: libc::EINVAL };
    let root = PathFd::new("/").map_err(|error| failed(&error))?;
    let apply = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(handled())?
            .scope(Scope::from_all(KNOWN))?
            .create()?
            .add_rule(PathBeneath::new(root, handled()))?
            .restrict_self()
    };
    apply().map(|_status| ()).map_err(|error: RulesetError| failed(&error))
}

/// The kernel's version of the interface, or 0 where there is none.
pub(in crate::native) fn abi_version() -> i64 {
    // SAFETY: a null attribute of length 0 with this flag asks for the version.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, CREATE_RULESET_VERSION)
    };
    version.max(0)
}
