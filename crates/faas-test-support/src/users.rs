//! Ordinary users of the machine, made for one test and gone after it. Needs root.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// A user that the machine did not have before. Dropping it removes it.
#[derive(Debug)]
pub struct User {
    name: String,
    /// Its uid.
    pub uid: u32,
    /// The gid of its own group.
    pub gid: u32,
}

/// The lock under which tests change the machine's users: useradd(8) gives up when somebody else does, and it leaves
/// nothing behind.
fn lock() -> File {
    let file = File::open("/etc").unwrap_or_else(|error| panic!("/etc: {error}"));
    file.lock().unwrap_or_else(|error| panic!("lock /etc: {error}"));
    file
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl User {
    /// Makes one, with a range of subordinate ids (subuid(5)) or without. Its home does not exist.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn make(with_range: bool) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("faas-t{}-{count}", std::process::id());
        let _lock = lock();
        let mut arguments = vec!["--no-create-home", "--no-log-init", "--user-group"];
        // useradd gives everybody a range where these files are.
        if with_range {
            for path in ["/etc/subuid", "/etc/subgid"] {
                let made = File::options().create(true).append(true).open(path);
                made.unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        } else {
            arguments.extend(["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"]);
        }
        arguments.push(&name);
        run("useradd", &arguments);
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_else(|error| panic!("passwd: {error}"));
        let entry = passwd.lines().find_map(|line| {
            let mut fields = line.strip_prefix(&name)?.strip_prefix(':')?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        let (uid, gid) = entry.unwrap_or_else(|| panic!("{name} is not in /etc/passwd"));
        Self { name, uid, gid }
    }

    /// The first of its subordinate uids and of its gids, where it has any.
    ///
    /// # Panics
    /// When the files that say so cannot be read.
    #[must_use]
    pub fn range(&self) -> Option<(u32, u32)> {
        let first = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == self.name).then(|| fields.next()?.parse().ok())?
            })
        };
        Some((first("/etc/subuid")?, first("/etc/subgid")?))
    }

    /// A command line that executes what follows it as this user, with `groups` in place of root's.
    #[must_use]
    pub fn wrapper(&self, groups: &[u32]) -> Vec<String> {
        let groups = match groups {
            [] => "--clear-groups".to_owned(),
            some => {
                let numbers: Vec<String> = some.iter().map(ToString::to_string).collect();
                format!("--groups={}", numbers.join(","))
            }
        };
        let ids = [format!("--reuid={}", self.uid), format!("--regid={}", self.gid)];
        ["setpriv".to_owned()].into_iter().chain(ids).chain([groups]).collect()
    }

    /// A command that runs `program` as this user, without root's groups.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let line = self.wrapper(&[]);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(program);
        command
    }

    /// Gives a file or directory to this user.
    ///
    /// # Panics
    /// When it cannot.
    pub fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _lock = lock();
        // userdel(8) refuses while a process has the user's id or one of its range, and one may be about to end.
        let mut said = String::new();
        let left = crate::gateway::leftovers::eventually(|| {
            match Command::new("userdel").arg(&self.name).stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => Vec::new(),
                Ok(output) => {
                    said = String::from_utf8_lossy(&output.stderr).into_owned();
                    vec![self.name.clone()]
                }
                Err(error) => {
                    said = error.to_string();
                    vec![self.name.clone()]
                }
            }
        });
        match left.as_slice() {
            [] => {}
            // A test has failed, and its message is what counts.
            _ if std::thread::panicking() => eprintln!("{} is left: {said}", self.name),
            _ => panic!("{} is left: {said}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::User;

    #[test]
    fn a_user_is_there_until_it_is_dropped() {
        crate::needs!(Root);
        let user = User::make(false);
        assert_eq!(user.range(), None);
        let output = user.command(Path::new("id")).arg("-u").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), user.uid.to_string());
        let name = user.name.clone();
        drop(user);
        assert!(!std::fs::read_to_string("/etc/passwd").unwrap().contains(&name));
    }
}
