//! Maps the ids of the child's user namespace, from outside of it (user_namespaces(7)).

use std::process::{Command, Stdio};

use rustix::process::Pid;

use super::job::{CALLER_ID, Ids, JobError};

/// Writes the id maps of the process `pid`, which waits for it.
pub(super) fn map(pid: Pid, ids: &Ids) -> Result<(), JobError> {
    let pid = pid.as_raw_nonzero().get();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, text).map_err(|error| JobError::at(format!("map ids ({path})"), error))
    };
    match ids {
        Ids::Single => {
            // Without a privilege a group can only be mapped by who gives up setgroups(2).
            write("setgroups", "deny")?;
            write("uid_map", &format!("0 {uid} 1"))?;
            write("gid_map", &format!("0 {gid} 1"))
        }
        Ids::Range { base } => {
            write("uid_map", &format!("0 {base} 65536"))?;
            write("gid_map", &format!("0 {base} 65536"))
        }
        Ids::Subordinate { first_uid, first_gid, .. } => {
            run("newuidmap", pid, uid, *first_uid, ids.count())?;
            run("newgidmap", pid, gid, *first_gid, ids.count())
        }
    }
}

fn run(program: &str, pid: i32, own: u32, first: u32, count: u32) -> Result<(), JobError> {
    let numbers = [0, first, count, CALLER_ID, own, 1].map(|number| number.to_string());
    let path = ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .map(|dir| std::path::Path::new(dir).join(program))
        .find(|path| path.exists())
        .ok_or_else(|| JobError::Failed(format!("{program} is not installed")))?;
    let output = Command::new(path)
        .arg(pid.to_string())
        .args(numbers)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| JobError::at(format!("run {program}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(JobError::Failed(format!("{program} refused: {}", said.lines().next().unwrap_or("without a word"))))
}
