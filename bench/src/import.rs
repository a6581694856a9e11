//! An archive sent to the server's image store, over and over: added, looked at, removed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::BenchError;
use crate::http::Connection;
use crate::tree::{self, Tree};

/// What is sent, and what the store must have of it then.
pub(crate) struct Import {
    /// A tar file.
    pub(crate) archive: PathBuf,
    /// The image's id.
    pub(crate) id: String,
    /// The server's.
    pub(crate) data_dir: PathBuf,
    pub(crate) tree: Tree,
}

/// Where a data directory has the files of an image.
pub(crate) fn root_in(data_dir: &Path, id: &str) -> PathBuf {
    data_dir.join("images/images").join(id.trim_start_matches("sha256:")).join("root")
}

impl Import {
    /// Imports it and returns how long that took, in nanoseconds. Off the clock: what other runs wrote is brought to
    /// the disk before, the files are compared and the image is removed afterwards.
    pub(crate) fn once(&self, connection: &mut Connection) -> Result<u64, BenchError> {
        // The server closes a connection that was idle while the peers had their turns.
        *connection = connection.again()?;
        tree::sync(&self.data_dir).map_err(BenchError::io(&self.data_dir))?;
        let begin = Instant::now();
        let answer = connection.post_file("/api/v1/images", &self.archive)?;
        let took = begin.elapsed().as_nanos() as u64;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.status != 201 || !text.contains(&self.id) {
            return Err(BenchError::Answer(format!("status {}: {text}", answer.status)));
        }
        let root = root_in(&self.data_dir, &self.id);
        self.tree.check(&root).map_err(BenchError::Answer)?;
        let path = format!("/api/v1/images?name={}", self.id);
        let answer = connection.send(&connection.request("DELETE", &path, None))?;
        if answer.status != 204 || root.exists() {
            let text = String::from_utf8_lossy(&answer.body);
            return Err(BenchError::Answer(format!("removal: status {}: {text}", answer.status)));
        }
        Ok(took)
    }
}
