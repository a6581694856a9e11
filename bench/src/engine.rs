//! The Docker engine of a bench: the one that `FAAS_TEST_DOCKER_HOST` names, or one of its own that
//! `scripts/test-engine.sh` starts and ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BenchError;
use crate::peer::first_line;

/// The image of all that runs on it: busybox (`images/alpine.sh`).
pub(crate) const IMAGE: &str = "alpine:latest";

/// Limits of a container, as the server is asked for, and no network on either side.
const CONTAINER: &str = "--network none --memory 512m --pids-limit 256 --cpus 1";

/// An engine that answers and has the image. One of the bench's own ends with this.
pub(crate) struct Engine {
    pub(crate) host: String,
    own: Option<PathBuf>,
}

fn script(verb: &str, dir: &Path) -> Result<(), BenchError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-engine.sh");
    let mut command = Command::new(&script);
    command.arg(verb).arg(dir);
    if verb == "start" {
        command.arg("alpine");
    }
    let status = command.stdin(Stdio::null()).status().map_err(BenchError::io(&script))?;
    if status.success() {
        Ok(())
    } else {
        Err(BenchError::Engine(format!("test-engine.sh {verb}: {status}")))
    }
}

impl Engine {
    /// Starts one below `scratch`, unless there is one.
    pub(crate) fn start(scratch: &Path) -> Result<Self, BenchError> {
        #[expect(clippy::disallowed_methods, reason = "the switch of all tests with an engine")]
        let engine = match std::env::var("FAAS_TEST_DOCKER_HOST") {
            Ok(host) => Self { host, own: None },
            Err(_) => {
                let dir = scratch.join("engine");
                // From here on it is ended, however far it came.
                let engine =
                    Self { host: format!("unix://{}/docker.sock", dir.display()), own: Some(dir.clone()) };
                script("start", &dir)?;
                engine
            }
        };
        engine.docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE])?;
        Ok(engine)
    }

    /// The first line of what the Docker CLI says.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let arguments: Vec<&str> =
            ["--host", &self.host].into_iter().chain(arguments.iter().copied()).collect();
        first_line("docker", &arguments).map_err(BenchError::Engine)
    }

    /// The command line that runs `true` in a new container.
    pub(crate) fn run(&self) -> Vec<String> {
        self.line(&format!("run --rm {CONTAINER} {IMAGE} true"))
    }

    /// The command line that runs `true` in a container that is there.
    pub(crate) fn exec(&self, container: &str) -> Vec<String> {
        self.line(&format!("exec {container} true"))
    }

    fn line(&self, words: &str) -> Vec<String> {
        let words = words.split(' ').map(str::to_owned);
        ["docker", "--host", &self.host].into_iter().map(str::to_owned).chain(words).collect()
    }

    /// Containers of a gateway that the engine still has.
    pub(crate) fn containers(&self, gateway_id: &str) -> Result<Vec<String>, BenchError> {
        let filter = format!("label=faas.gateway={}", gateway_id.trim());
        let first = self.docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])?;
        // One without a name is removed, whatever the engine lists.
        Ok(Some(first)
            .filter(|name| !name.is_empty())
            .map(|name| format!("container {name}"))
            .into_iter()
            .collect())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(dir) = &self.own
            && let Err(error) = script("stop", dir)
        {
            eprintln!("faas-bench: {error}");
        }
    }
}
