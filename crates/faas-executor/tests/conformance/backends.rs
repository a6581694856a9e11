//! How a backend is started for a case; what may not be left of it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use faas_test_support::gateway::leftovers;

use super::stock::{self, Image};
use super::subject::{Backend, Subject};

/// The first argument with which a test starts this program again for one case.
pub(crate) const RUN: &str = "run-case";

/// A variable of the gateway's own that no sandbox may see.
pub(crate) const GATEWAYS_OWN: &str = "FAAS_CONFORMANCE_GATEWAYS_OWN";

/// How many small executions there are, where somebody says so.
pub(crate) const EXECUTIONS: &str = "FAAS_CONFORMANCE_EXECUTIONS";

#[cfg(feature = "native")]
pub(crate) use super::native::{native_rootful, native_rootless, native_rootless_range};

#[cfg(feature = "docker")]
pub(crate) fn docker(image: &str, case: &str) {
    faas_test_support::needs!(Root, Docker);
    run(Backend::Docker, Image::of(image), case, |program, _dir| Command::new(program));
}

/// Runs one case in a process of its own, in a directory that is gone afterwards. `prepare` is given this program and
/// the directory, and says who runs it.
pub(crate) fn run(backend: Backend, image: Image, case: &str, prepare: impl FnOnce(&Path, &Path) -> Command) {
    let dir = stock::open_dir();
    let home = dir.path().join("home");
    fs::create_dir_all(home.join("data")).unwrap();
    let mut command = prepare(&std::env::current_exe().unwrap(), dir.path());
    command.args([RUN, backend.as_str(), image.recipe(), case]).arg(dir.path());
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env(GATEWAYS_OWN, "private").env("HOME", &home).stdin(Stdio::null());
    for name in [DOCKER_HOST, EXECUTIONS] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let marks = [dir.path().display().to_string()];
    assert_eq!(leftovers::eventually(|| leftovers::marked(&marks)), [""; 0]);
    // Whatever cannot be removed was left by somebody.
    dir.close().unwrap();
}

const DOCKER_HOST: &str = "FAAS_TEST_DOCKER_HOST";

/// Where the tests' engine listens.
#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
pub(crate) fn docker_host() -> String {
    std::env::var(DOCKER_HOST).unwrap()
}

/// The other side of [`run`]: `BACKEND IMAGE CASE DIR`.
pub(crate) fn run_case(arguments: &[&OsStr]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
    let &[backend, image, case, dir] = words.as_slice() else { return ExitCode::from(64) };
    let (backend, image, case) = (Backend::of(backend), Image::of(image), super::case(case));
    leftovers::become_subreaper().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let subject = Subject::start(backend, image, Path::new(dir)).await;
            case(&subject).await;
            subject.stop().await;
        });
    }));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(_told) => {
            clear(Path::new(dir));
            ExitCode::FAILURE
        }
    }
}

/// Ends what a case that failed has left: sandboxes that last would do so for ever. All of it is below this process.
fn clear(dir: &Path) {
    let own = i32::try_from(std::process::id()).unwrap();
    let left = leftovers::eventually(|| {
        let below = leftovers::descendants(own);
        for pid in below.iter().filter_map(|process| rustix::process::Pid::from_raw(process.pid)) {
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                // Gone already is as good.
                Ok(()) | Err(_) => {}
            }
        }
        leftovers::still_there(&below)
    });
    let ids = ["data", "seam"].map(|name| dir.join("home").join(name).join("gateway-id"));
    let ids: Vec<_> =
        ids.iter().filter_map(|path| Some(fs::read_to_string(path).ok()?.trim().to_owned())).collect();
    let marked = leftovers::eventually(|| {
        for line in leftovers::marked(&ids) {
            let Some(cgroup) = line.strip_prefix("cgroup ") else { continue };
            let below = fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
            for dir in below.filter(|path| path.is_dir()).chain([cgroup.into()]) {
                match fs::remove_dir(&dir) {
                    // Tried again, until it is found no more.
                    Ok(()) | Err(_) => {}
                }
            }
        }
        leftovers::marked(&ids)
    });
    assert_eq!((left, marked), (Vec::new(), Vec::new()), "left after a failure");
}
