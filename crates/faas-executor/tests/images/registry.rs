//! A registry on loopback: serves images, asks for credentials, and misbehaves as told. One request a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::oci::Image;

/// What happens to a blob on its way.
#[derive(Clone)]
pub(crate) enum Fault {
    Flip,
    Truncate,
    Longer,
    Status(u16),
    /// Half of it, and then nothing.
    Hang,
    /// Half of it, and the rest when there is a permit.
    Wait(Arc<tokio::sync::Semaphore>),
}

#[derive(Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    Basic,
    /// A token from this realm.
    Bearer(String),
}

pub(crate) const USER: &str = "user";
pub(crate) const PASSWORD: &str = "pass:word";
pub(crate) const IDENTITY: &str = "identity";
const TOKEN: &str = "a-token";

#[derive(Default)]
pub(crate) struct State {
    manifests: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: BTreeMap<String, Fault>,
    pub(crate) auth: Auth,
    /// Whether tokens are given without credentials.
    pub(crate) anonymous: bool,
    /// Where blobs are really.
    pub(crate) redirect: Option<String>,
    /// Every request with its Authorization header.
    pub(crate) requests: Vec<(String, Option<String>)>,
}

#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&registry.state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                // A client that goes away in the middle is what some tests are about.
                tokio::spawn(async move { drop(serve(stream, &state).await) });
            }
        });
        registry
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Serves an image as `REPOSITORY:TAG`.
    pub(crate) fn add(&self, repository: &str, tag: &str, image: &Image) {
        self.add_manifest(repository, tag, &image.blobs[&image.manifest]);
        let mut state = self.state.lock().unwrap();
        state.blobs.extend(image.blobs.iter().map(|(digest, bytes)| (digest.to_string(), bytes.clone())));
    }

    pub(crate) fn add_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) {
        let digest = faas_executor::images::Digest::of(bytes);
        let mut state = self.state.lock().unwrap();
        for reference in [tag.to_owned(), digest.to_string()] {
            state.manifests.insert(format!("{repository}/manifests/{reference}"), bytes.to_vec());
        }
    }

    pub(crate) fn fault(&self, digest: impl ToString, fault: Fault) {
        self.state.lock().unwrap().faults.insert(digest.to_string(), fault);
    }

    /// How many requests there were whose path has `text` in it.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|(path, _)| path.contains(text)).count()
    }

    /// The Authorization headers of requests whose path has `text` in it.
    pub(crate) fn authorizations(&self, text: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(path, _)| path.contains(text)).map(|(_, auth)| auth.clone()).collect()
    }
}

pub(crate) fn basic() -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    fault: Option<Fault>,
}

fn plain(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: b"{}".to_vec(), fault: None }
}

fn answer(state: &mut State, path: &str, authorization: Option<&str>, body: &str) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if path == "/token" {
        let is_known = authorization == Some(&basic()) || body.contains(&format!("refresh_token={IDENTITY}"));
        let scope = format!("{query}{body}");
        if !(is_known || state.anonymous) || !scope.contains("scope=repository%3A") {
            return plain(401);
        }
        return Answer { body: format!(r#"{{"token":"{TOKEN}"}}"#).into_bytes(), ..plain(200) };
    }
    let (accepted, challenge) = match &state.auth {
        Auth::None => (None, String::new()),
        Auth::Basic => (Some(basic()), "Basic realm=\"x\"".to_owned()),
        Auth::Bearer(realm) => {
            (Some(format!("Bearer {TOKEN}")), format!("Bearer realm=\"{realm}\",service=\"test\""))
        }
    };
    if accepted.is_some_and(|accepted| authorization != Some(accepted.as_str())) {
        return Answer { headers: vec![format!("WWW-Authenticate: {challenge}")], ..plain(401) };
    }
    let Some(path) = path.strip_prefix("/v2/") else { return plain(404) };
    if let Some(manifest) = state.manifests.get(path) {
        return Answer { body: manifest.clone(), ..plain(200) };
    }
    let Some((_, digest)) = path.rsplit_once("/blobs/") else { return plain(404) };
    if let Some(other) = &state.redirect {
        return Answer { headers: vec![format!("Location: {other}/v2/{path}")], ..plain(307) };
    }
    let fault = state.faults.get(digest).cloned();
    match (state.blobs.get(digest), fault) {
        (_, Some(Fault::Status(status))) => plain(status),
        (Some(blob), fault) => Answer { body: blob.clone(), fault, ..plain(200) },
        (None, _) => plain(404),
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut piece = [0u8; 4096];
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let (head, mut body) =
        text.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned())).unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while body.len() < length {
        let mut piece = [0u8; 4096];
        let read = stream.read(&mut piece).await?;
        body.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let authorization = header("authorization");
    let Answer { status, mut headers, mut body, fault } = {
        let mut state = state.lock().unwrap();
        state.requests.push((path.clone(), authorization.clone()));
        answer(&mut state, &path, authorization.as_deref(), &body)
    };
    let whole = body.len();
    match fault {
        Some(Fault::Flip) => body[whole / 2] ^= 0x55,
        Some(Fault::Longer) => body.extend_from_slice(&[0; 100]),
        _ => {}
    }
    let length = if matches!(fault, Some(Fault::Longer)) { body.len() } else { whole };
    headers.push(format!("Content-Length: {length}"));
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{}\r\n\r\n", headers.join("\r\n"));
    stream.write_all(head.as_bytes()).await?;
    match fault {
        Some(Fault::Truncate) => stream.write_all(&body[..whole / 2]).await?,
        Some(Fault::Hang) => {
            stream.write_all(&body[..whole / 2]).await?;
            // Until the client has had enough.
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Some(Fault::Wait(permits)) => {
            stream.write_all(&body[..whole / 2]).await?;
            drop(permits.acquire().await);
            stream.write_all(&body[whole / 2..]).await?;
        }
        _ => stream.write_all(&body).await?,
    }
    stream.shutdown().await
}
