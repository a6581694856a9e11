//! Whether the engine can be used now. Asked again and again: an engine that was stopped comes back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::query_parameters::ListNetworksOptionsBuilder;
use tokio::sync::Notify;

use super::client::{CallError, Client};
use super::config::{DockerConfig, EngineAddress, TransportChoice};
use super::facts::Facts;
use super::transport::{self, Transport};

/// How long an answer is good for whoever asks what there is.
const FRESH: Duration = Duration::from_secs(2);

/// How long a good answer is good for whoever has work: an engine that is gone says so by itself.
const GOOD_FOR_WORK: Duration = Duration::from_secs(60);

/// How long the engine may take to answer the probe's three questions.
const WITHIN: Duration = Duration::from_secs(4);

/// An engine that answered, and what it is.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    pub(super) facts: Facts,
    pub(super) transport: Transport,
    /// Why it is this transport.
    pub(super) transport_reason: String,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    outcome: Result<Arc<Live>, String>,
}

/// The last answer, and who asks for the next.
#[derive(Debug)]
pub(super) struct Probe {
    config: DockerConfig,
    seen: Mutex<Option<Seen>>,
    asking: tokio::sync::Mutex<()>,
    /// Told when the engine answers after it did not.
    pub(super) came_back: Notify,
}

impl Probe {
    pub(super) fn new(config: DockerConfig) -> Self {
        let asking = tokio::sync::Mutex::new(());
        Self { config, seen: Mutex::new(None), asking, came_back: Notify::new() }
    }

    /// The engine as it is now, or at most [`FRESH`] ago; or why there is none. Comes to an end within twice [`WITHIN`].
    pub(super) async fn now(&self) -> Result<Arc<Live>, String> {
        self.within(FRESH, FRESH).await
    }

    /// The engine for somebody who has work for it. Usually asks nothing.
    pub(super) async fn for_work(&self) -> Result<Arc<Live>, String> {
        self.within(GOOD_FOR_WORK, FRESH).await
    }

    /// Takes note of a call that failed: where the engine is gone the next one asks anew.
    pub(super) fn note(&self, error: &CallError) {
        if error.is_outage() {
            *self.seen() = None;
        }
    }

    async fn within(&self, good: Duration, bad: Duration) -> Result<Arc<Live>, String> {
        if let Some(outcome) = self.known(good, bad) {
            return outcome;
        }
        let _turn = self.asking.lock().await;
        // Who waited for a turn takes the answer of the one before.
        if let Some(outcome) = self.known(good, bad) {
            return outcome;
        }
        let outcome = match tokio::time::timeout(WITHIN, ask(&self.config)).await {
            Ok(outcome) => outcome.map(Arc::new),
            Err(_elapsed) => Err(format!(
                "the engine at {} does not answer within {} s: look at its log, or restart it",
                self.config.host,
                WITHIN.as_secs()
            )),
        };
        let was_good = {
            let mut seen = self.seen();
            let was_good = seen.as_ref().is_some_and(|seen| seen.outcome.is_ok());
            *seen = Some(Seen { at: Instant::now(), outcome: outcome.clone() });
            was_good
        };
        if outcome.is_ok() && !was_good {
            self.came_back.notify_one();
        }
        outcome
    }

    fn known(&self, good: Duration, bad: Duration) -> Option<Result<Arc<Live>, String>> {
        let seen = self.seen();
        let seen = seen.as_ref()?;
        let valid = if seen.outcome.is_ok() { good } else { bad };
        (seen.at.elapsed() < valid).then(|| seen.outcome.clone())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        // No code panics while it holds the lock halfway through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(config: &DockerConfig) -> Result<Live, String> {
    let text = |error: CallError| error.to_string();
    let client = Client::connect(&config.host).await.map_err(text)?;
    let info = client.call("tell of itself", WITHIN, client.docker.info()).await.map_err(text)?;
    let filter = [("name".to_owned(), vec!["bridge".to_owned()])].into();
    let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
    let networks = client.docker.list_networks(Some(options));
    let networks = client.call("list its networks", WITHIN, networks).await.map_err(text)?;
    // The filter takes every name that contains the word.
    let bridge = networks.iter().any(|network| network.name.as_deref() == Some("bridge"));
    let version = client.docker.client_version();
    let facts = Facts::new(info, version.to_string(), bridge);
    let api = (version.major_version, version.minor_version);
    if let Some(reason) = facts.unusable(api, std::env::consts::ARCH, config.runtime.as_deref()) {
        return Err(reason);
    }
    let (transport, transport_reason) = choose_transport(config, &facts).await?;
    Ok(Live { client, facts, transport, transport_reason })
}

async fn choose_transport(config: &DockerConfig, facts: &Facts) -> Result<(Transport, String), String> {
    if config.transport == TransportChoice::Attach {
        return Ok((Transport::Attach, "docker_transport is `attach`".to_owned()));
    }
    let obstacle = match &config.host {
        EngineAddress::Tcp(_) | EngineAddress::Tls { .. } => {
            Some("the engine is reached over TCP".to_owned())
        }
        EngineAddress::Unix(path) => transport::obstacle_to_socket(path, facts).await,
    };
    match (obstacle, config.transport) {
        (None, _) => Ok((Transport::Socket, "the engine is this host's".to_owned())),
        (Some(reason), TransportChoice::Socket) => {
            Err(format!("docker_transport is `socket`, which is not possible here: {reason}"))
        }
        (Some(reason), _) => Ok((Transport::Attach, reason)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{CallError, Probe};
    use crate::docker::config::{DockerConfig, EngineAddress, TransportChoice};

    /// An engine that answers every question with the same text, and counts them.
    async fn engine(answer: &'static str) -> (PathBuf, Arc<AtomicUsize>) {
        let path = std::env::temp_dir().join(format!("engine-{}.sock", uuid::Uuid::now_v7().simple()));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = [0u8; 4096];
                let Ok(_) = stream.read(&mut head).await else { continue };
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (path, asked)
    }

    fn probe(path: PathBuf) -> Probe {
        Probe::new(DockerConfig {
            host: EngineAddress::Unix(path),
            transport: TransportChoice::Attach,
            runtime: None,
            auth_file: None,
        })
    }

    #[tokio::test]
    async fn an_old_engine_is_refused_once_for_many_who_ask() {
        let (path, asked) = engine(r#"{"ApiVersion":"1.40","ServerVersion":"19.03","OSType":"linux"}"#).await;
        let probe = probe(path.clone());
        let (a, b) = tokio::join!(probe.now(), probe.for_work());
        let reason = a.unwrap_err();
        assert_eq!(reason, b.unwrap_err());
        // It lists no networks in this form, so it is refused at the latest there.
        assert!(!reason.is_empty());
        let once = asked.load(Ordering::SeqCst);
        assert!(probe.now().await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), once, "the answer was still fresh");
        probe.note(&CallError::Unreachable("gone".into()));
        assert!(probe.now().await.is_err());
        assert!(asked.load(Ordering::SeqCst) > once, "it was asked anew");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_says_nothing_does_not_hold_up_who_asks() {
        let path = std::env::temp_dir().join(format!("engine-{}.sock", uuid::Uuid::now_v7().simple()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let reason = probe(path.clone()).now().await.unwrap_err();
        assert!(reason.contains("does not answer"), "{reason}");
        std::fs::remove_file(path).unwrap();
    }
}
