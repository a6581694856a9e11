//! Users and groups from the image's `/etc/passwd` and `/etc/group` (passwd(5), group(5)). No NSS: the agent is static.

use std::collections::BTreeMap;

/// Where users and groups are.
pub(crate) const PASSWD: &str = "/etc/passwd";
pub(crate) const GROUP: &str = "/etc/group";

/// Who a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) name: Option<String>,
    pub(crate) home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// An id. The highest number is none: the kernel takes it for "leave as it is" (setresuid(2)).
fn id(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn passwd_line(line: &str) -> Option<Passwd<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1)?;
    Some(Passwd { name, uid, gid, home })
}

/// Name, id and members of a group.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = id(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or("")))
}

/// The longest name of a user or group that is told.
const MAX_NAME_BYTES: usize = 256;

/// The names in a file of users or groups, by number: the first one of each.
pub(crate) fn names(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    let entries = text.lines().filter_map(group_line).filter(|(name, ..)| name.len() <= MAX_NAME_BYTES);
    for (name, number, _) in entries {
        names.entry(number).or_insert_with(|| name.to_owned());
    }
    names
}

/// Finds out who `user` is: a name or a uid, alone or with `:` and a group. Without a group it is the primary one of
/// `/etc/passwd`, or 0 where the uid is not in it. The error says what there is not.
pub(crate) fn resolve(user: Option<&str>, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, asked_group) = match user.unwrap_or("0").split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user.unwrap_or("0"), None),
    };
    let mut entries = passwd.lines().filter_map(passwd_line);
    let number = id(user);
    let entry = match number {
        Some(uid) => entries.find(|entry| entry.uid == uid),
        None => entries.find(|entry| entry.name == user),
    };
    let (uid, primary) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(format!("there is no user {user:?} in /etc/passwd of the image")),
    };
    let gid = match asked_group {
        None => primary,
        Some(asked) => match id(asked) {
            Some(gid) => gid,
            None => group
                .lines()
                .filter_map(group_line)
                .find_map(|(name, gid, _)| (name == asked).then_some(gid))
                .ok_or_else(|| format!("there is no group {asked:?} in /etc/group of the image"))?,
        },
    };
    let name = entry.as_ref().map(|entry| entry.name.to_owned());
    let groups = match &name {
        Some(name) => group
            .lines()
            .filter_map(group_line)
            .filter(|(_, other, members)| *other != gid && members.split(',').any(|member| member == name))
            .map(|(_, other, _)| other)
            .collect(),
        None => Vec::new(),
    };
    let home = match entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()) {
        Some(home) => home.to_owned(),
        None if uid == 0 => "/root".to_owned(),
        None => "/".to_owned(),
    };
    Ok(Identity { uid, gid, groups, name, home })
}

#[cfg(test)]
mod tests {
    use super::{names, resolve};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nann:x:1000:1000::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\naudio:x:29:bob,ann\nann:x:1000:ann\nvideo:x:44:\nshort:x:45\n";

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let ann = resolve(Some("ann"), PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups, ann.home.as_str()), (1000, 1000, vec![29], "/home/ann"));
        assert_eq!(resolve(Some("1000"), PASSWD, GROUP).unwrap().groups, [29]);
    }

    #[test]
    fn users_and_groups_have_names_by_number() {
        assert_eq!(names(PASSWD).get(&1000).map(String::as_str), Some("ann"));
        assert_eq!(names(GROUP).get(&44).map(String::as_str), Some("video"));
        assert_eq!(names(PASSWD).len(), 2);
    }

    #[test]
    fn a_group_can_be_named_or_numbered() {
        assert_eq!(resolve(Some("ann:video"), PASSWD, GROUP).unwrap().gid, 44);
        assert_eq!(resolve(Some("7:9"), PASSWD, GROUP).unwrap().gid, 9);
        assert_eq!(resolve(Some("7"), PASSWD, GROUP).unwrap().gid, 0);
    }

    #[test]
    fn nobody_is_root_where_there_are_no_files() {
        let root = resolve(None, "", "").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str(), root.name), (0, 0, "/root", None));
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert!(resolve(Some("eve"), PASSWD, GROUP).unwrap_err().contains("\"eve\""));
        assert!(resolve(Some("ann:wheel"), PASSWD, GROUP).unwrap_err().contains("\"wheel\""));
        assert!(resolve(Some("-1"), PASSWD, GROUP).is_err());
        assert!(resolve(Some(""), PASSWD, GROUP).is_err());
        assert!(resolve(Some("ann:"), PASSWD, GROUP).is_err());
    }

    #[test]
    fn the_number_that_means_no_change_is_no_id() {
        assert!(resolve(Some("4294967295"), PASSWD, GROUP).is_err());
        assert!(resolve(Some("0:4294967295"), PASSWD, GROUP).is_err());
        let passwd = "eve:x:4294967295:0::/:/bin/sh\n";
        assert!(resolve(Some("eve"), passwd, "").is_err());
        assert!(resolve(Some("+5"), PASSWD, GROUP).is_err());
    }
}
