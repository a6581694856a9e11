//! Speaks to registries (OCI distribution specification 1.1, "Pull"; the distribution project's token flow).
//!
//! A registry is somebody else's program: what it sends is capped and checked, its redirects and realms are followed
//! only to where a caller's credentials cannot leak.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::auth::{self, Challenge};
use super::digest::Digest;
use super::error::ImageError;
use super::ingest::ByteStream;
use super::manifest::{ACCEPT, MAX_MANIFEST_BYTES};
use super::names::{ImageName, Version};
use super::store::ImageStoreConfig;
use crate::registry_auth::{self, Credentials, DOCKER_HUB, Found};

/// Docker Hub's registry.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// The longest answer with a token.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// What a registry calls the digest of an answer.
const DIGEST_HEADER: &str = "docker-content-digest";

const USER_AGENT: &str = concat!("faas-gateway/", env!("CARGO_PKG_VERSION"));

/// All registries.
#[derive(Debug)]
pub(super) struct Registries {
    insecure: Vec<String>,
    docker_config: Option<std::path::PathBuf>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    client: OnceCell<Client>,
}

/// One registry and one repository of it, for one pull.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    name: ImageName,
    /// `https://HOST/v2/REPOSITORY/`
    base: Url,
    insecure: Vec<String>,
    found: Found,
    /// What the registry has accepted; for it alone.
    authorization: Mutex<Option<HeaderValue>>,
}

/// The innermost reason of an error, without the URL, which may have a signature in it.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

impl Registries {
    pub(super) fn new(config: &ImageStoreConfig) -> Self {
        Self {
            insecure: config.insecure_registries.iter().map(|host| host.to_ascii_lowercase()).collect(),
            docker_config: config.docker_config.clone(),
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            client: OnceCell::new(),
        }
    }

    /// Begins to speak to the registry of `name`.
    pub(super) async fn session(&self, name: &ImageName) -> Result<Session, ImageError> {
        let registry = name.registry();
        let is_insecure = self.insecure.iter().any(|host| host == registry);
        let client = match self.client.get_or_try_init(|| self.build(true)).await {
            Ok(client) => client.clone(),
            // What it lacks is for TLS.
            Err(_) if is_insecure => {
                self.build(false).await.map_err(|reason| ImageError::Store { reason })?
            }
            Err(reason) => {
                let (registry, image) = (registry.to_owned(), name.to_string());
                return Err(ImageError::Unreachable { registry, image, reason });
            }
        };
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let scheme = if is_insecure { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", name.repository());
        let base = Url::parse(&base).map_err(|error| ImageError::InvalidName {
            name: name.to_string(),
            reason: format!("its registry is no host: {error}"),
        })?;
        let found = match self.docker_config.clone() {
            None => Ok(Found::Nothing),
            Some(path) => {
                let registry = registry.to_owned();
                tokio::task::spawn_blocking(move || registry_auth::find(&path, &registry))
                    .await
                    .unwrap_or(Ok(Found::Nothing))
            }
        };
        let found = found.map_err(|error| ImageError::Unauthorized {
            registry: registry.to_owned(),
            image: name.to_string(),
            reason: error.to_string(),
        })?;
        let insecure = self.insecure.clone();
        Ok(Session { client, name: name.clone(), base, insecure, found, authorization: Mutex::default() })
    }

    /// A client with the machine's certificates, or one that trusts nobody, for plain HTTP. On a thread that may block.
    /// The error is for people.
    async fn build(&self, with_certificates: bool) -> Result<Client, String> {
        let (connect, idle) = (self.connect_timeout, self.idle_timeout);
        let built = tokio::task::spawn_blocking(move || {
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                // Somebody else may have been faster: one is as good as the other.
                match rustls::crypto::ring::default_provider().install_default() {
                    Ok(()) | Err(_) => {}
                }
            }
            let client = Client::builder()
                .user_agent(USER_AGENT)
                .connect_timeout(connect)
                .read_timeout(idle)
                .referer(false)
                .redirect(reqwest::redirect::Policy::custom(redirect));
            if with_certificates { client.build() } else { client.tls_certs_only([]).build() }
        });
        let reason = match built.await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => reason(error),
            Err(error) => error.to_string(),
        };
        let hint = "https takes the machine's certificate authorities (Debian's package ca-certificates)";
        Err(format!("cannot speak https: {reason}; {hint}"))
    }
}

/// Blobs are often somewhere else. The client drops credentials when host or port change; what is left to see to is
/// that nothing comes unencrypted that was asked for encrypted.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("it redirects again and again");
    }
    match attempt.url().scheme() {
        "https" => attempt.follow(),
        "http" if !was_https => attempt.follow(),
        _ => attempt.error("it redirects from https to something else"),
    }
}

impl Session {
    fn unreachable(&self, reason: String) -> ImageError {
        let image = self.name.to_string();
        ImageError::Unreachable { registry: self.name.registry().to_owned(), image, reason }
    }

    fn bad(&self, reason: impl Into<String>) -> ImageError {
        let image = self.name.to_string();
        ImageError::BadAnswer { registry: self.name.registry().to_owned(), image, reason: reason.into() }
    }

    fn unauthorized(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Unauthorized {
            registry: self.name.registry().to_owned(),
            image: self.name.to_string(),
            reason: reason.into(),
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// A manifest or index and its digest: what the name stands for, or the one with a digest.
    pub(super) async fn manifest(&self, version: &Version) -> Result<(Vec<u8>, Digest), ImageError> {
        let path = match version {
            Version::Tag(tag) => format!("manifests/{tag}"),
            Version::Digest(digest) => format!("manifests/{digest}"),
        };
        let response = self.get(&path).await?;
        let header = response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
        let claimed = header.and_then(|text| text.parse::<Digest>().ok());
        let body = self.body(response, MAX_MANIFEST_BYTES).await?;
        let actual = Digest::of(&body);
        let expected = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => claimed,
        };
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(ImageError::DigestMismatch {
                what: format!("the manifest of {}", self.name),
                expected,
                actual,
            }),
            None => Ok((body, actual)),
        }
    }

    /// A small blob as a whole.
    pub(super) async fn blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
        let response = self.get(&format!("blobs/{digest}")).await?;
        let body = self.body(response, max_bytes).await?;
        let actual = Digest::of(&body);
        if actual == *digest {
            return Ok(body);
        }
        Err(ImageError::DigestMismatch {
            what: "the image's configuration".to_owned(),
            expected: *digest,
            actual,
        })
    }

    /// A blob as it comes.
    pub(super) async fn blob_stream(&self, digest: &Digest) -> Result<ByteStream, ImageError> {
        let response = self.get(&format!("blobs/{digest}")).await?;
        let name = self.name.clone();
        let broken = move |error| ImageError::Unreachable {
            registry: name.registry().to_owned(),
            image: name.to_string(),
            reason: format!("the connection broke in the middle of a layer: {}", reason(error)),
        };
        Ok(response.bytes_stream().map(move |piece| piece.map_err(&broken)).boxed())
    }

    async fn body(&self, response: Response, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
        let mut body = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.unreachable(reason(error)))?;
            if body.len() as u64 + piece.len() as u64 > max_bytes {
                return Err(self.bad(format!("it sends more than {max_bytes} bytes where less is allowed")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Asks for something of the repository, with a token if that is wanted.
    async fn get(&self, path: &str) -> Result<Response, ImageError> {
        let url = self.base.join(path).map_err(|error| self.bad(error.to_string()))?;
        let shown = self.authorization();
        let response = self.send(&url, shown.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.check(response);
        }
        // The answer of a host that the registry redirected to says nothing of the registry's credentials.
        if response.url().origin() != self.base.origin() {
            return Err(self.bad("it redirects to a host that asks for credentials"));
        }
        let authorization = self.authorize(response.headers()).await?;
        if shown.as_ref() == Some(&authorization) {
            return Err(
                self.unauthorized("it does not accept the credentials of docker's config.json; log in again")
            );
        }
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Some(authorization.clone());
        let response = self.send(&url, Some(authorization)).await?;
        self.check(response)
    }

    async fn send(&self, url: &Url, authorization: Option<HeaderValue>) -> Result<Response, ImageError> {
        let mut request = self.client.get(url.clone()).header(ACCEPT_HEADER, ACCEPT);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.send().await.map_err(|error| self.unreachable(reason(error)))
    }

    fn check(&self, response: Response) -> Result<Response, ImageError> {
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(ImageError::Unknown { image: self.name.to_string() }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.unauthorized(match &self.found {
                Found::Nothing => {
                    "docker's config.json has no credentials for it, or there is no such image: log in, or check \
                     the name"
                        .to_owned()
                }
                Found::Credentials(_) => {
                    "the credentials of docker's config.json are wrong or do not reach this far: log in again".to_owned()
                }
                Found::InHelper(helper) => self.in_helper(helper),
            })),
            StatusCode::TOO_MANY_REQUESTS => Err(self.bad("it allows no more requests for now")),
            status => Err(self.bad(format!("status {}", status.as_u16()))),
        }
    }

    fn in_helper(&self, helper: &str) -> String {
        format!(
            "docker's config.json keeps its credentials in the helper `{}`, which is not asked: put them under auths",
            helper.chars().take(64).collect::<String>().escape_debug()
        )
    }

    /// Gets what a registry that answered 401 wants to see.
    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, ImageError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE);
        let challenge = challenges
            .iter()
            .find_map(|value| auth::challenge(value.to_str().ok()?))
            .ok_or_else(|| self.unauthorized("it asks for credentials in a way that is not known here"))?;
        if let Found::InHelper(helper) = &self.found {
            return Err(self.unauthorized(self.in_helper(helper)));
        }
        match (challenge, &self.found) {
            (Challenge::Basic, Found::Credentials(Credentials::Basic { user, password })) => {
                let text = format!("{user}:{password}");
                use base64::Engine as _;
                self.header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
            }
            (Challenge::Basic, Found::Credentials(Credentials::IdentityToken(_))) => {
                Err(self
                    .unauthorized("it wants a password, and docker's config.json has a token; log in again"))
            }
            (Challenge::Basic, _) => {
                Err(self
                    .unauthorized("it wants a password, and docker's config.json has none for it; log in"))
            }
            (Challenge::Bearer { realm, service, scope: _ }, found) => {
                let credentials = match found {
                    Found::Credentials(credentials) => Some(credentials),
                    _ => None,
                };
                self.token(&realm, service, credentials).await
            }
        }
    }

    fn header(&self, text: &str) -> Result<HeaderValue, ImageError> {
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| self.bad("its token has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Asks the realm for a token that is good for pulling this repository and nothing else.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue, ImageError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut realm = Url::parse(realm).map_err(|_| self.bad("it names no URL to get a token from"))?;
        self.check_realm(&realm)?;
        let scope = format!("repository:{}:pull", self.name.repository());
        let mut pairs = vec![("scope", scope)];
        pairs.extend(service.map(|service| ("service", service)));
        let request = match credentials {
            // The "OAuth2 Token Authentication" of the distribution project: only a POST keeps the token out of logs.
            Some(Credentials::IdentityToken(token)) => {
                pairs.push(("grant_type", "refresh_token".to_owned()));
                pairs.push(("refresh_token", token.clone()));
                pairs.push(("client_id", "faas-gateway".to_owned()));
                let mut form = realm.clone();
                form.set_query(None);
                form.query_pairs_mut().extend_pairs(&pairs);
                let body = form.query().unwrap_or_default().to_owned();
                self.client.post(realm).header("content-type", "application/x-www-form-urlencoded").body(body)
            }
            credentials => {
                realm.query_pairs_mut().extend_pairs(&pairs);
                let request = self.client.get(realm);
                match credentials {
                    Some(Credentials::Basic { user, password }) => request.basic_auth(user, Some(password)),
                    _ => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| {
            self.unreachable(format!("the server that gives tokens for it: {}", reason(error)))
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                self.check(response)?;
                return Err(self.unauthorized("it gives no token; log in again"));
            }
            status => return Err(self.bad(format!("status {} when asked for a token", status.as_u16()))),
        }
        let body = self.body(response, MAX_TOKEN_BYTES).await?;
        let answer = serde_json::from_slice::<Answer>(&body).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.filter(|token| !token.is_empty()).ok_or_else(|| self.bad("it gives no token"))?;
        self.header(&format!("Bearer {token}"))
    }

    /// A realm may be anywhere, that is how the flow works; but not where everybody on the way can read along.
    fn check_realm(&self, realm: &Url) -> Result<(), ImageError> {
        let is_allowed = match realm.scheme() {
            "https" => true,
            "http" => {
                let host = realm.host_str().unwrap_or_default();
                let with_port = realm.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
                self.insecure.contains(&with_port)
            }
            _ => false,
        };
        if !is_allowed || !realm.username().is_empty() || realm.password().is_some() {
            return Err(self.bad("it names a server without encryption to get a token from"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use reqwest::Url;

    use super::Registries;
    use crate::images::store::ImageStoreConfig;

    #[tokio::test]
    async fn a_token_is_never_asked_for_without_encryption_unless_that_host_is_allowed() {
        let config = ImageStoreConfig {
            insecure_registries: vec!["r.example:5000".to_owned(), "[::1]:80".to_owned()],
            ..ImageStoreConfig::new(PathBuf::new())
        };
        let registries = Registries::new(&config);
        let session = registries.session(&"r.example:5000/x".parse().unwrap()).await.unwrap();
        assert_eq!(session.base.as_str(), "http://r.example:5000/v2/x/");
        let allowed = |url: &str| session.check_realm(&Url::parse(url).unwrap()).is_ok();
        assert!(allowed("https://auth.example/token"));
        assert!(allowed("http://r.example:5000/token"));
        assert!(!allowed("http://r.example/token"));
        assert!(!allowed("http://auth.example/token"));
        assert!(!allowed("https://user:pw@auth.example/token"));
        assert!(!allowed("file:///etc/passwd"));
        let hub = registries.session(&"alpine".parse().unwrap()).await.unwrap();
        assert_eq!(hub.base.as_str(), "https://registry-1.docker.io/v2/library/alpine/");
    }
}
