//! The native backends: whom each is for, and how the image comes to its store.

use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;

use faas_test_support::needs;
use faas_test_support::users::User;

use super::backends::run;
use super::stock::Image;
use super::store;
use super::subject::Backend;

pub(crate) fn native_rootful(image: &str, case: &str) {
    needs!(Root, TestImages);
    let image = Image::of(image);
    run(Backend::Native, image, case, |program, dir| {
        if image != Image::Host {
            symlink(store::shared_store(image), dir.join("home/data/images")).unwrap();
        }
        Command::new(program)
    });
}

pub(crate) fn native_rootless(image: &str, case: &str) {
    needs!(Root, TestImages);
    run_as(&User::make(false), image, case);
}

pub(crate) fn native_rootless_range(image: &str, case: &str) {
    needs!(Root, TestImages, Uidmap);
    let user = User::make(true);
    assert!(user.range().is_some(), "the user has no range");
    run_as(&user, image, case);
}

fn run_as(user: &User, image: &str, case: &str) {
    let image = Image::of(image);
    run(Backend::Native, image, case, |program, dir| {
        // Where the user may read it.
        let own = dir.join("program");
        store::link_or_copy(program, &own);
        if image != Image::Host {
            store::write_layout(image, &dir.join("layout"));
        }
        chown_to(user, &dir.join("home"));
        chown_to(user, &dir.join("home/data"));
        user.command(&own)
    });
}

fn chown_to(user: &User, path: &Path) {
    chown(path, Some(user.uid), Some(user.gid)).unwrap();
}
