//! The program `agent file JSON`: one thing done with the files of the sandbox, as whoever it is run as. See
//! [`faas_guest_protocol::files`].
//!
//! It is a process of its own, and no part of the agent that serves: it may wait, and it may be killed.

mod attributes;
mod info;
mod input;
mod list;
mod pack;
mod place;
mod read;
mod remove;
mod rename;
mod unpack;
mod watch;
mod write;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use faas_guest_protocol::files::{FileFailure, FileReply, FileRequest, RawPath};
use rustix::io::Errno;
use serde::Serialize;

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Something to be told.
    Told(FileFailure),
    /// The answer has begun, and cannot be brought to its end.
    Broken,
}

impl Failed {
    fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self::Told(FileFailure { errno: errno.raw_os_error(), message: message.into(), size: None })
    }

    /// Whether it is that something is not there.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Told(failure) if failure.errno == libc::ENOENT)
    }

    /// Of the kernel's words about a path.
    fn at(path: &Path, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self::Told(FileFailure { errno, message: format!("{}: {error}", path.display()), size: None })
    }
}

/// Adds the path to what the kernel said.
pub(crate) trait At<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failed>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failed> {
        self.map_err(|error| Failed::at(path.as_ref(), &error))
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failed> {
        self.map_err(|errno| Failed::at(path.as_ref(), &errno.into()))
    }
}

/// Where the answer goes. Who does not read it holds up this program and nothing else.
pub(crate) struct Answer {
    out: io::BufWriter<File>,
    begun: bool,
}

impl Answer {
    fn stdout() -> io::Result<Self> {
        let out = rustix::stdio::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self { out: io::BufWriter::with_capacity(64 << 10, File::from(out)), begun: false })
    }

    /// The first line.
    fn begin(&mut self, said: impl Serialize) -> Result<(), Failed> {
        self.begun = true;
        self.line(&FileReply::Ok(said))
    }

    fn line(&mut self, said: &impl Serialize) -> Result<(), Failed> {
        // The protocol's own types always serialize.
        let mut line = serde_json::to_vec(said).map_err(|_| Failed::Broken)?;
        line.push(b'\n');
        self.bytes(&line)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.out.write_all(bytes).map_err(|_| Failed::Broken)
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.out.flush().map_err(|_| Failed::Broken)
    }

    /// The pipe itself, when all that was said before is in it.
    fn raw(&mut self) -> Result<&mut File, Failed> {
        self.flush()?;
        Ok(self.out.get_mut())
    }
}

fn path(raw: &RawPath) -> &Path {
    Path::new(OsStr::from_bytes(&raw.0))
}

fn raw(path: impl AsRef<OsStr>) -> RawPath {
    RawPath(path.as_ref().as_bytes().to_vec())
}

fn serve(request: &FileRequest, answer: &mut Answer) -> Result<(), Failed> {
    match request {
        FileRequest::Stat { path } => answer.begin(info::stat(self::path(path))?),
        FileRequest::Read { path, range, head } => read::read(self::path(path), *range, *head, answer),
        FileRequest::List { path, after, limit } => {
            list::list(self::path(path), after.as_ref(), *limit, answer)
        }
        FileRequest::Pack { path } => pack::pack(self::path(path), answer),
        FileRequest::Watch { path, recursive } => watch::watch(self::path(path), *recursive, answer),
        FileRequest::Write { path, mode, owner } => {
            answer.begin(write::write(self::path(path), *mode, owner.as_deref(), input::stdin()?)?)
        }
        FileRequest::Unpack { path } => answer.begin(unpack::unpack(self::path(path), input::stdin()?)?),
        FileRequest::MakeDir { path, mode } => answer.begin(place::make_dir(self::path(path), *mode)?),
        FileRequest::Move { path, to } => answer.begin(rename::rename(self::path(path), self::path(to))?),
        FileRequest::Remove { path, recursive } => {
            remove::remove(self::path(path), *recursive)?;
            answer.begin(())
        }
    }
}

/// Does what `json` says, a [`FileRequest`].
pub(crate) fn run(json: &OsStr) -> ExitCode {
    let Ok(mut answer) = Answer::stdout() else { return ExitCode::FAILURE };
    let done = match serde_json::from_slice::<FileRequest>(json.as_bytes()) {
        Ok(request) => serve(&request, &mut answer),
        Err(error) => Err(Failed::new(Errno::INVAL, format!("the request cannot be read: {error}"))),
    };
    let done = done.or_else(|failed| match failed {
        Failed::Told(failure) if !answer.begun => answer.line(&FileReply::<()>::Error(failure)),
        _ => Err(Failed::Broken),
    });
    match done.and_then(|()| answer.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
