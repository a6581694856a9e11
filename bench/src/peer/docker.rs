//! `docker run` of a small image that the bench makes itself from the machine's static busybox, with the limits of
//! our own sandboxes and without a network, as ours.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::first_line;

/// The engine with our image in it; both the image and nothing else are removed with it.
pub(crate) struct Docker {
    image: String,
}

impl Docker {
    /// Imports the image, or says why there is no engine to measure.
    pub(crate) fn prepare(scratch: &Path) -> Result<Self, String> {
        first_line("docker", &["version", "--format", "{{.Server.Version}}"])?;
        let busybox = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or("no static busybox for the image")?;
        let root = scratch.join("docker-image");
        let bin = root.join("bin");
        let failed = |error: std::io::Error| format!("{}: {error}", bin.display());
        fs::create_dir_all(&bin).map_err(failed)?;
        for name in ["busybox", "true", "sh"] {
            fs::copy(busybox, bin.join(name)).map_err(failed)?;
        }
        let archive = scratch.join("docker-image.tar");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        first_line("tar", &["-C", &text(&root), "-cf", &text(&archive), "."])?;
        let image = format!("faas-bench:{}", std::process::id());
        first_line("docker", &["import", &text(&archive), &image])?;
        Ok(Self { image })
    }

    /// The command line that runs `true` in a new container.
    pub(crate) fn argv(&self) -> Vec<String> {
        let options = "run --rm --network none --memory 512m --pids-limit 256 --cpus 1";
        std::iter::once("docker")
            .chain(options.split_whitespace())
            .chain([self.image.as_str(), "/bin/true"])
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let removed = Command::new("docker")
            .args(["rmi", "--force", &self.image])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("faas-bench: image {} could not be removed", self.image);
        }
    }
}
