//! TLS to an engine, both sides with certificates, from the files that Docker's own client has (`ca.pem`, `cert.pem`,
//! `key.pem`). The engine's certificate has to be signed by that CA: unlike bollard's own TLS this trusts no CA of the
//! system beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::client::below;

/// A client of the engine at `HOST:PORT`, with the files in `certs`; nothing is sent yet.
///
/// # Errors
/// What is wrong with a file, and what can be done.
pub(super) async fn connect(address: &str, certs: &Path, limit_s: u64) -> Result<Docker, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config(certs).await?)
        .https_only()
        .enable_http1()
        .wrap_connector(http);
    let mut builder = Client::builder(TokioExecutor::new());
    // As bollard has it: a connection that the engine has closed meanwhile would fail a call.
    builder.pool_max_idle_per_host(0);
    let client = Arc::new(builder.build(connector));
    let send = move |request: BollardRequest| {
        let client = Arc::clone(&client);
        async move { client.request(request).await.map_err(Error::from) }
    };
    let url = format!("https://{address}");
    Docker::connect_with_custom_transport(send, Some(url), limit_s, API_DEFAULT_VERSION)
        .map_err(|error| error.to_string())
}

async fn config(certs: &Path) -> Result<ClientConfig, String> {
    let (ca, cert, key) = (certs.join("ca.pem"), certs.join("cert.pem"), certs.join("key.pem"));
    let bytes = read(&ca).await?.ok_or_else(|| {
        format!(
            "there is no {}: put the engine's CA there, or set DOCKER_CERT_PATH to the directory that has it",
            ca.display()
        )
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca, &bytes)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    // An engine may do without a certificate of its clients (`--tls` instead of `--tlsverify`).
    let (chain, secret) = match (read(&cert).await?, read(&key).await?) {
        (None, None) => return Ok(builder.with_no_client_auth()),
        (Some(chain), Some(secret)) => (chain, secret),
        (None, _) => return Err(format!("there is a key {} and no {}", key.display(), cert.display())),
        (_, None) => {
            return Err(format!("there is a certificate {} and no {}", cert.display(), key.display()));
        }
    };
    let chain = certificates(&cert, &chain)?;
    let secret = PrivateKeyDer::from_pem_slice(&secret)
        .map_err(|error| format!("{} is no private key in PEM: {error}", key.display()))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
}

async fn read(path: &PathBuf) -> Result<Option<Vec<u8>>, String> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} has no certificate in PEM", path.display())),
        Err(error) => Err(format!("{} is no PEM: {error}", path.display())),
    }
}

/// What a failed handshake means and what can be done; `None` where the error is not one of TLS.
pub(super) fn reason(error: &Error, certs: &Path) -> Option<String> {
    let certs = certs.display();
    let tls = cause(error)?;
    Some(match tls {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            format!(
                "its certificate is not signed by the CA in {certs}/ca.pem: put the CA of the engine there, or set \
                 DOCKER_CERT_PATH"
            )
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another host name: use one that it has".to_owned(),
        rustls::Error::InvalidCertificate(error) => format!("its certificate cannot be accepted: {error}"),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied
            | AlertDescription::HandshakeFailure,
        ) => format!(
            "it wants a certificate of its clients ({tls}): put cert.pem and key.pem, signed by the engine's CA, into \
             {certs}"
        ),
        rustls::Error::InvalidMessage(_) => {
            format!("what listens there speaks no TLS ({tls}): check the port, or unset DOCKER_TLS_VERIFY")
        }
        other => format!("TLS failed: {other}"),
    })
}

fn cause(error: &Error) -> Option<&rustls::Error> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        at = below(error);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::config;

    #[tokio::test]
    async fn files_that_are_missing_or_wrong_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let said = || async { config(dir.path()).await.unwrap_err() };
        assert!(said().await.contains("DOCKER_CERT_PATH"));
        std::fs::write(dir.path().join("ca.pem"), "hello").unwrap();
        assert!(said().await.contains("ca.pem has no certificate"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(dir.path().join("ca.pem"), broken).unwrap();
        assert!(said().await.contains("ca.pem"));
    }
}
