//! Owners by name, and what a new file takes over from the one it replaces.

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::io::Errno;

use super::{At as _, Failed};
use crate::receiving::read_users;
use crate::users;

/// The mode of a new file.
const NEW: u32 = 0o644;

/// What a file is to have.
pub(super) struct Wanted {
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
}

impl Wanted {
    /// `owner`: a user with or without a group, by name or number.
    pub(super) fn new(mode: Option<u32>, owner: Option<&str>) -> Result<Self, Failed> {
        let owner = owner.map(|owner| {
            let found = users::resolve(Some(owner), &read_users(users::PASSWD), &read_users(users::GROUP));
            found.map(|found| (found.uid, found.gid)).map_err(|message| Failed::new(Errno::INVAL, message))
        });
        Ok(Self { mode, owner: owner.transpose()? })
    }

    /// Gives it to a file that takes the place of `before`.
    pub(super) fn give(&self, file: &File, before: Option<&Metadata>, path: &Path) -> Result<(), Failed> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid)).at(path)?;
        } else if let Some(before) = before {
            let own = file.metadata().at(path)?;
            if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
                // Who may not give files away has made one of its own: it was allowed to replace the other.
                match fchown(file, Some(before.uid()), Some(before.gid())) {
                    Ok(()) | Err(_) => {}
                }
            }
        }
        // After the owner, a change of which takes the set-id bits away.
        let kept = before.map(|before| before.mode() & 0o7777);
        let mode = self.mode.or(kept).unwrap_or(NEW);
        file.set_permissions(Permissions::from_mode(mode)).at(path)
    }
}
