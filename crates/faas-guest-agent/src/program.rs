//! From a request to what execve(2) takes: arguments, environment, the paths to try.

use std::ffi::CString;
use std::io;

use faas_guest_protocol::Program;

use crate::sys::c_string;
use crate::users::Identity;

/// The PATH of programs whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, ready to be executed.
#[derive(Debug)]
pub(crate) struct Image {
    /// The paths to try, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    /// What the shell's arguments are where a candidate is a text without `#!` (execvp(3)), the candidate's own path
    /// to be put in second place.
    pub(crate) name: String,
}

/// The environment of a program: what was asked for, and what every program expects.
fn environment(asked: &[(String, String)], identity: &Identity) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(asked.len() + 4);
    for (name, value) in asked {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    let mut default = |name: &str, value: &str| {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", &identity.home);
    if let Some(name) = &identity.name {
        default("USER", name);
        default("LOGNAME", name);
    }
    env
}

/// Where a program of this name may be.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir })).collect()
}

/// Makes a program ready. Fails for a NUL byte or an empty list.
pub(crate) fn prepare(program: &Program, env: &[(String, String)], identity: &Identity) -> io::Result<Image> {
    let argv: Vec<&str> = match program {
        Program::Shell(line) => vec!["/bin/sh", "-c", line],
        Program::Argv(argv) => argv.iter().map(String::as_str).collect(),
    };
    let Some(name) = argv.first().copied() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no program to run"));
    };
    let env = environment(env, identity);
    let path = env.iter().find_map(|(name, value)| (name == "PATH").then_some(value.as_str())).unwrap_or("");
    Ok(Image {
        candidates: candidates(name, path).iter().map(|path| c_string(path)).collect::<io::Result<_>>()?,
        name: name.to_owned(),
        argv: argv.iter().map(|arg| c_string(arg)).collect::<io::Result<_>>()?,
        envp: env
            .iter()
            .map(|(name, value)| c_string(&format!("{name}={value}")))
            .collect::<io::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::Program;

    use super::{candidates, environment, prepare};
    use crate::users::Identity;

    fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![], name: Some("root".into()), home: "/root".into() }
    }

    #[test]
    fn a_name_is_looked_for_in_every_directory_of_the_path() {
        assert_eq!(candidates("ls", "/bin::/usr/bin"), ["/bin/ls", "./ls", "/usr/bin/ls"]);
        assert_eq!(candidates("./ls", "/bin"), ["./ls"]);
    }

    #[test]
    fn a_later_variable_wins_and_defaults_do_not() {
        let asked = [("A", "1"), ("HOME", "/x"), ("A", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let env = environment(&asked, &root());
        let get =
            |name: &str| env.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(get("A"), ["2"]);
        assert_eq!(get("HOME"), ["/x"]);
        assert_eq!(get("USER"), ["root"]);
        assert_eq!(get("PATH").len(), 1);
    }

    #[test]
    fn a_nul_byte_is_an_error() {
        assert!(prepare(&Program::Argv(vec!["a\0b".into()]), &[], &root()).is_err());
        assert!(prepare(&Program::Argv(vec![]), &[], &root()).is_err());
    }
}
