//! How each backend is started, and as whom; what may not be left of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use faas_test_support::gateway::leftovers;
use faas_test_support::needs;
use faas_test_support::users::User;

use super::stock::{self, Image};
use super::subject::{Backend, Subject};

/// The first argument with which a test starts this program again for one case.
pub(crate) const RUN: &str = "run-case";

/// A variable of the gateway's own that no sandbox may see.
pub(crate) const GATEWAYS_OWN: &str = "FAAS_CONFORMANCE_GATEWAYS_OWN";

/// How many small executions there are, where somebody says so.
pub(crate) const EXECUTIONS: &str = "FAAS_CONFORMANCE_EXECUTIONS";

pub(crate) fn native_rootful(image: &str, case: &str) {
    needs!(Root, TestImages);
    run(Backend::Native, Image::of(image), case, None);
}

pub(crate) fn native_rootless(image: &str, case: &str) {
    needs!(Root, TestImages);
    run(Backend::Native, Image::of(image), case, Some(&User::make(false)));
}

pub(crate) fn native_rootless_range(image: &str, case: &str) {
    needs!(Root, TestImages, Uidmap);
    let user = User::make(true);
    assert!(user.range().is_some(), "the user has no range");
    run(Backend::Native, Image::of(image), case, Some(&user));
}

pub(crate) fn docker(image: &str, case: &str) {
    needs!(Root, Docker);
    run(Backend::Docker, Image::of(image), case, None);
}

/// Runs one case in a process of its own, as `user` or root, in a directory that is gone afterwards.
fn run(backend: Backend, image: Image, case: &str, user: Option<&User>) {
    let dir = stock::open_dir();
    let home = dir.path().join("home");
    let data = home.join("data");
    fs::create_dir_all(&data).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut command = match user {
        Some(user) => {
            // Where the user may read it.
            let own = dir.path().join("program");
            stock::link_or_copy(&program, &own);
            if image != Image::Host {
                stock::write_layout(image, &dir.path().join("layout"));
            }
            for path in [&home, &data] {
                chown(path, Some(user.uid), Some(user.gid)).unwrap();
            }
            user.command(&own)
        }
        None => {
            if backend == Backend::Native && image != Image::Host {
                std::os::unix::fs::symlink(stock::shared_store(image), data.join("images")).unwrap();
            }
            Command::new(&program)
        }
    };
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
    runtime.block_on(async {
        let subject = Subject::start(backend, image, Path::new(dir)).await;
        case(&subject).await;
        subject.stop().await;
    });
    ExitCode::SUCCESS
}
