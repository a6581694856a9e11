//! An engine over TCP with TLS, whose clients need a certificate too.

use std::path::{Path, PathBuf};
use std::process::Command;

use faas_executor::docker::EngineAddress;
use faas_executor::{EngineError, ExecutionOutcome, PullPolicy};
use faas_test_support::needs;
use faas_types::ErrorCode;

use super::{DockerConfig, OwnEngine, SETTLE, TransportChoice, engine_of, shell, temporary, text};

fn openssl(dir: &Path, line: &str) {
    let output = Command::new("openssl").current_dir(dir).args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// A CA's own files, and what it has signed.
struct Authority(PathBuf);

impl Authority {
    fn make(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        openssl(&dir, &format!("req -x509 {KEY} -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem"));
        Self(dir)
    }

    /// Signs `NAME-cert.pem` with `NAME-key.pem`.
    fn sign(&self, name: &str, extensions: &str) {
        std::fs::write(self.0.join("ext"), extensions).unwrap();
        openssl(&self.0, &format!("req {KEY} -subj /CN={name} -keyout {name}-key.pem -out {name}.csr"));
        let by = "-CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile ext";
        openssl(&self.0, &format!("x509 -req -days 2 -in {name}.csr {by} -out {name}-cert.pem"));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A directory as Docker's own client has it.
fn client_dir(dir: PathBuf, ca: &Authority, own: Option<&Authority>) -> PathBuf {
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(ca.file("ca.pem"), dir.join("ca.pem")).unwrap();
    if let Some(own) = own {
        std::fs::copy(own.file("client-cert.pem"), dir.join("cert.pem")).unwrap();
        std::fs::copy(own.file("client-key.pem"), dir.join("key.pem")).unwrap();
    }
    dir
}

/// Runs a command with an engine there.
async fn run(host: EngineAddress) -> Result<ExecutionOutcome, EngineError> {
    let data_dir = temporary("data");
    let docker = DockerConfig { host, transport: TransportChoice::Auto, runtime: None, auth_file: None };
    let engine = engine_of(&data_dir, docker, PullPolicy::Never).await;
    let outcome = engine.execute(shell("echo over TLS; exit 3")).await;
    engine.shutdown(SETTLE).await;
    std::fs::remove_dir_all(data_dir).unwrap();
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_with_tls_is_used_and_what_is_wrong_with_certificates_is_told() {
    needs!(Root, Docker);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (ca, other) = (Authority::make(at("ca")), Authority::make(at("other")));
    ca.sign("engine", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
    for authority in [&ca, &other] {
        authority.sign("client", "extendedKeyUsage=clientAuth\n");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let option = |name: &str, file: &str| format!("--{name}={}", ca.file(file).display());
    let own = OwnEngine::start_with(&[
        format!("--host=tcp://127.0.0.1:{port}"),
        "--tlsverify".to_owned(),
        option("tlscacert", "ca.pem"),
        option("tlscert", "engine-cert.pem"),
        option("tlskey", "engine-key.pem"),
    ]);
    let plain: EngineAddress = format!("tcp://127.0.0.1:{port}").parse().unwrap();

    let good = client_dir(at("good"), &ca, Some(&ca));
    let outcome = run(plain.clone().with_tls(good.clone())).await.unwrap();
    assert_eq!((text(&outcome.stdout), outcome.exit.code), ("over TLS\n", Some(3)));

    let name = format!("tcp://localhost:{port}").parse::<EngineAddress>().unwrap();
    let no_tls = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let no_tls_address = format!("tcp://{}", no_tls.local_addr().unwrap()).parse::<EngineAddress>().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = no_tls.accept() {
            // A client that hangs up first says the same.
            drop(std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    for (what, host, words) in [
        ("no TLS", plain.clone(), "DOCKER_TLS_VERIFY=1"),
        (
            "another CA",
            plain.clone().with_tls(client_dir(at("a"), &other, Some(&ca))),
            "not signed by the CA",
        ),
        ("no certificate", plain.clone().with_tls(client_dir(at("b"), &ca, None)), "certificate"),
        ("another's", plain.clone().with_tls(client_dir(at("c"), &ca, Some(&other))), "certificate"),
        ("no files", plain.with_tls(at("none")), "set DOCKER_CERT_PATH"),
        ("another name", name.with_tls(good.clone()), "another host name"),
        ("an engine without", no_tls_address.with_tls(good), "speaks no TLS"),
    ] {
        let error = run(host).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RuntimeUnavailable, "{what}: {error}");
        assert!(error.to_string().contains(words), "{what}: {words} in {error}");
    }
    drop(own);
}
