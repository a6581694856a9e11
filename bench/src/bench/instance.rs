//! An instance of the server under measurement.

use serde_json::{Value, json};

use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::schedule::Work;

/// An instance that runs.
pub(super) struct Instance {
    pub(super) id: String,
}

impl Instance {
    /// Creates one with the limits that the benches use, and what is asked for besides.
    pub(super) fn create(gateway: &Gateway, asked: &Value) -> Result<Self, BenchError> {
        let mut body = json!({"memory_mb": 512, "pids_limit": 256, "cpu_cores": 1.0});
        if let (Some(body), Some(asked)) = (body.as_object_mut(), asked.as_object()) {
            body.extend(asked.clone());
        }
        let mut connection = Connection::open(gateway.address)?;
        let request = connection.request("POST", "/api/v1/instances", Some(&body.to_string()));
        let answer = connection.send(&request)?;
        let text = String::from_utf8_lossy(&answer.body);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        match (answer.status, value["id"].as_str()) {
            (201, Some(id)) => Ok(Self { id: id.to_owned() }),
            (status, _) => Err(BenchError::Answer(format!("status {status}: {text}"))),
        }
    }

    /// `true` in it.
    pub(super) fn exec_true(&self) -> Work {
        Work::Execute {
            path: format!("/api/v1/instances/{}/exec", self.id),
            body: json!({"command": ["true"]}).to_string(),
            stdout: String::new(),
        }
    }

    /// Deletes it.
    pub(super) fn delete(self, gateway: &Gateway) -> Result<(), BenchError> {
        let mut connection = Connection::open(gateway.address)?;
        let answer = connection.send(&connection.request(
            "DELETE",
            &format!("/api/v1/instances/{}", self.id),
            None,
        ))?;
        match answer.status {
            204 => Ok(()),
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                Err(BenchError::Answer(format!("status {status}: {text}")))
            }
        }
    }
}
