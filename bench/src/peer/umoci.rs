//! `skopeo copy` into an OCI layout and `umoci unpack` of that: how an image becomes a root directory without a daemon.

use std::path::{Path, PathBuf};

use super::first_line;
use crate::image::TAG;

/// What umoci makes.
#[derive(Clone, Copy)]
pub(crate) enum Unpack {
    /// A bundle for an OCI runtime, with a list of all files and their digests.
    Bundle,
    /// The root directory alone.
    Raw,
}

/// Whether both are here, or which is not.
pub(crate) fn is_here() -> Result<(), String> {
    ["skopeo", "umoci"].iter().try_for_each(|program| first_line(program, &["--version"]).map(drop))
}

/// The command lines that unpack `source` (in skopeo's words, `oci:DIR:TAG`) below the directory `dir`, and where the
/// files are then.
pub(crate) fn steps(source: &str, dir: &Path, unpack: Unpack) -> (Vec<Vec<String>>, PathBuf) {
    let dir = dir.display();
    let (verb, root) = match unpack {
        Unpack::Bundle => ("unpack", format!("{dir}/unpacked/rootfs")),
        Unpack::Raw => ("raw unpack", format!("{dir}/unpacked")),
    };
    let copy =
        format!("skopeo --insecure-policy --tmpdir {dir} copy --quiet {source} oci:{dir}/layout:{TAG}");
    let unpack = format!("umoci {verb} --image {dir}/layout:{TAG} {dir}/unpacked");
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    (vec![words(copy), words(unpack)], root.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Unpack, steps};

    #[test]
    fn everything_is_below_the_given_directory() {
        let (steps, root) = steps("oci:/x:bench", Path::new("/run/1"), Unpack::Raw);
        assert_eq!(steps[0].last().unwrap(), "oci:/run/1/layout:bench");
        assert_eq!(steps[1], ["umoci", "raw", "unpack", "--image", "/run/1/layout:bench", "/run/1/unpacked"]);
        assert_eq!(root, Path::new("/run/1/unpacked"));
    }
}
