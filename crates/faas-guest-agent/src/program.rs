//! From a request to what execve(2) takes: arguments, environment, the places where a program may be.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

use faas_guest_protocol::Program;

use crate::sys::c_string;
use crate::users::Identity;

/// The PATH of programs whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest path that the kernel takes, its NUL included (`PATH_MAX`).
pub(crate) const PATH_BYTES: usize = 4096;

/// A program, ready to be executed.
#[derive(Debug)]
pub(crate) struct Image {
    /// What it is called: a path when it holds a `/`, otherwise a name to be looked for.
    pub(crate) name: String,
    /// The directories to look in.
    pub(crate) path: String,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
}

/// The environment of a program: what was asked for, the last value of each name, and what every program expects.
fn environment(asked: &[(String, String)], identity: &Identity) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(asked.len() + 4);
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, value) in asked {
        match places.get(name.as_str()) {
            Some(place) => env[*place].1.clone_from(value),
            None => {
                places.insert(name, env.len());
                env.push((name.clone(), value.clone()));
            }
        }
    }
    let user = identity.name.as_deref();
    let defaults = [
        ("PATH", Some(DEFAULT_PATH)),
        ("HOME", Some(identity.home.as_str())),
        ("USER", user),
        ("LOGNAME", user),
    ];
    for (name, value) in defaults {
        if let (Some(value), false) = (value, places.contains_key(name)) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    env
}

/// The paths that a program may have, one after the other, as execvp(3) tries them. Allocates nothing, since it is
/// asked between clone(2) and execve(2).
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    name: &'a [u8],
    /// The directories not yet tried; `None` at the end.
    rest: Option<&'a [u8]>,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(name: &'a [u8], path: &'a [u8]) -> Self {
        Self { name, rest: Some(path) }
    }

    /// Writes the next path into `buffer`, with a NUL at its end. `false`: there is none.
    pub(crate) fn next_into(&mut self, buffer: &mut [u8; PATH_BYTES]) -> bool {
        while let Some(rest) = self.rest {
            let dir: &[u8] = if self.name.contains(&b'/') {
                self.rest = None;
                b""
            } else {
                let end = rest.iter().position(|byte| *byte == b':');
                self.rest = end.and_then(|end| rest.get(end + 1..));
                // An empty entry is the working directory.
                match end.map_or(rest, |end| rest.get(..end).unwrap_or(rest)) {
                    b"" => b".",
                    dir => dir,
                }
            };
            let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            if dir.len() + slash.len() + self.name.len() >= PATH_BYTES {
                // Longer than any path can be.
                continue;
            }
            let parts = dir.iter().chain(slash).chain(self.name).chain(b"\0");
            buffer.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
            return true;
        }
        false
    }
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
        name: name.to_owned(),
        path: path.to_owned(),
        argv: argv.iter().map(|arg| c_string(arg)).collect::<io::Result<_>>()?,
        envp: env
            .iter()
            .map(|(name, value)| c_string(&format!("{name}={value}")))
            .collect::<io::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use faas_guest_protocol::Program;

    use super::{Candidates, PATH_BYTES, environment, prepare};
    use crate::users::Identity;

    fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: vec![], name: Some("root".into()), home: "/root".into() }
    }

    fn candidates(name: &str, path: &str) -> Vec<String> {
        let mut candidates = Candidates::new(name.as_bytes(), path.as_bytes());
        let mut buffer = [b'x'; PATH_BYTES];
        let mut found = Vec::new();
        while candidates.next_into(&mut buffer) {
            found.push(CStr::from_bytes_until_nul(&buffer).unwrap().to_str().unwrap().to_owned());
        }
        found
    }

    #[test]
    fn a_name_is_looked_for_in_every_directory_of_the_path() {
        assert_eq!(candidates("ls", "/bin::/usr/bin"), ["/bin/ls", "./ls", "/usr/bin/ls"]);
        assert_eq!(candidates("ls", "/bin:"), ["/bin/ls", "./ls"]);
        assert_eq!(candidates("ls", ""), ["./ls"]);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(candidates("./ls", "/bin"), ["./ls"]);
        assert_eq!(candidates("/x/ls", "/bin"), ["/x/ls"]);
    }

    #[test]
    fn what_is_too_long_for_a_path_is_passed_over() {
        let dir = "d".repeat(PATH_BYTES);
        assert_eq!(candidates("ls", &format!("{dir}:/bin")), ["/bin/ls"]);
        assert_eq!(candidates(&"n".repeat(PATH_BYTES), "/bin:/usr/bin"), [""; 0]);
        let longest = format!("/{}", "n".repeat(PATH_BYTES - 2));
        assert_eq!(candidates(&longest, ""), [longest.as_str()]);
        assert_eq!(candidates(&format!("{longest}n"), ""), [""; 0]);
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
