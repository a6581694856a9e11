use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;

use faas_executor::sandbox::Limits;

use super::{Config, ConfigError, Invocation, Surroundings};

const HOST: Limits = Limits { memory_bytes: 4 << 30, cpu_millicores: 4000, pids: 32_768, disk_bytes: None };

fn invocation(
    arguments: &[&str],
    environment: &[(&str, &str)],
    root: bool,
) -> Result<Invocation, ConfigError> {
    let arguments =
        std::iter::once("faas-gateway-server").chain(arguments.iter().copied()).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let surroundings = Surroundings { environment: environment.collect(), root, host: HOST };
    Config::from_process(arguments, &surroundings)
}

fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    match invocation(arguments, environment, true)? {
        Invocation::Serve(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let message = config(arguments, environment).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message:?}");
    message
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn nothing_given_is_the_documented_defaults() {
    let config = config(&[], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir.to_str(), Some("/var/lib/faas"));
    let image = if cfg!(feature = "native") { "host" } else { "alpine" };
    assert_eq!((config.default_image.as_str(), config.log_filter.as_str()), (image, "info"));
    assert_eq!((config.max_concurrent, config.max_queued), (16, 1024));
    #[cfg(feature = "native")]
    assert_eq!(config.native_slots, 8);
    assert_eq!((config.max_body_bytes, config.max_body_bytes_total), (16 << 20, 256 << 20));
    assert_eq!((config.limits.timeout_ms.default, config.limits.timeout_ms.max), (30_000, 3_600_000));
    assert_eq!((config.limits.memory_mb.default, config.limits.memory_mb.max), (512, 4096));
    assert_eq!((config.limits.cpu_millicores.default, config.limits.cpu_millicores.max), (1000, 4000));
}

#[test]
fn an_argument_wins_over_the_environment_and_that_over_the_file() {
    let (_file, path) = file(
        "max_concurrent = 1\nmax_queued = 1\nmax_connections = 1\ndefault_cpu_cores = 0.5\nlog_format = \"json\"",
    );
    let environment = [("FAAS_CONFIG", &*path), ("FAAS_MAX_CONCURRENT", "2"), ("FAAS_MAX_QUEUED", "2")];
    let config = config(&["--max-concurrent", "3"], &environment).unwrap();
    assert_eq!((config.max_concurrent, config.max_queued, config.max_connections), (3, 2, 1));
    assert_eq!(config.limits.cpu_millicores.default, 500);
    assert_eq!(config.log_format, super::LogFormat::Json);
}

#[test]
fn unknown_names_are_refused_with_what_was_meant() {
    assert!(refused(&[], &[("FAAS_LISTE", "x")]).contains("did you mean FAAS_LISTEN?"));
    assert!(refused(&["--max-queud", "3"], &[]).contains("--max-queued"));
    assert!(refused(&["serve"], &[]).contains("serve"));
    let (_file, path) = file("max_body_byte = 1");
    let message = refused(&["--config", &path], &[]);
    assert!(
        message.contains("max_body_byte") && message.contains("did you mean max_body_bytes?"),
        "{message}"
    );
    let (_file, path) = file("config = \"other.toml\"");
    assert!(refused(&["--config", &path], &[]).contains("config"));
}

#[test]
fn variables_of_scripts_and_tests_are_passed_over_and_empty_ones_count_as_not_set() {
    let environment =
        [("FAAS_BASE_URL", "x"), ("FAAS_GATEWAY_BIN", "y"), ("FAAS_SKIP_LOG", "z"), ("FAAS_LISTEN", "")];
    assert_eq!(config(&[], &environment).unwrap().listen.port(), 8080);
}

#[test]
fn bad_values_name_the_option() {
    assert!(refused(&["--max-concurrent", "0"], &[]).contains("max_concurrent"));
    assert!(refused(&[], &[("FAAS_MAX_BODY_BYTES", "-1")]).contains("FAAS_MAX_BODY_BYTES"));
    assert!(refused(&["--default-cpu-cores", "NaN"], &[]).contains("default_cpu_cores"));
    assert!(refused(&["--max-memory-mb", "999999"], &[]).contains("max_memory_mb"));
    assert!(refused(&["--max-body-bytes-total", "5"], &[]).contains("max_body_bytes_total"));
    assert!(refused(&["--log-format", "xml"], &[]).contains("xml"));
    assert!(refused(&["--runtime", "podman"], &[]).contains("podman"));
    assert!(refused(&["--data-dir", ""], &[]).contains("data-dir"));
    assert!(refused(&["--default-image", "a b"], &[]).contains("default_image"));
    assert!(refused(&["--config", "/no/such/file.toml"], &[]).contains("/no/such/file.toml"));
    assert!(refused(&[], &[("RUST_LOG", "a=b=c")]).contains("RUST_LOG"));
}

#[test]
fn a_database_is_a_url_whose_password_nobody_sees() {
    let url = "postgres://ann:geheim@db.example/faas";
    let given = config(&["--database-url", url], &[]).unwrap();
    assert!(!format!("{given:?}").contains("geheim"), "{given:?}");
    assert_eq!(given.database_url.unwrap().shown(), "postgres://ann@db.example:5432/faas");
    assert!(config(&[], &[]).unwrap().database_url.is_none());
    let (_file, path) = file(&format!("database_url = {url:?}"));
    assert!(config(&["--config", &path], &[]).unwrap().database_url.is_some());
    for wrong in ["mysql://ann:geheim@h/d", "ann:geheim@h", "postgres://ann:geheim@h:x/d"] {
        for message in
            [refused(&["--database-url", wrong], &[]), refused(&[], &[("FAAS_DATABASE_URL", wrong)])]
        {
            assert!(message.contains("database_url") && !message.contains("geheim"), "{message}");
        }
    }
    assert!(refused(&["--idempotency-ttl-ms", "0"], &[]).contains("idempotency_ttl_ms"));
}

#[test]
fn a_broken_file_is_refused_with_the_line() {
    let (_file, path) = file("max_queued = 1\nlisten = ");
    assert!(refused(&["--config", &path], &[]).contains("line 2"));
    let (_file, path) = file("max_queued = 1\nmax_concurrent = \"many\"");
    assert!(refused(&["--config", &path], &[]).contains("line 2"));
}

#[test]
fn only_loopback_is_served() {
    for good in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:0", "localhost:0"] {
        config(&["--listen", good], &[]).unwrap();
    }
    for bad in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80"] {
        assert!(refused(&["--listen", bad], &[]).contains("no authentication"), "{bad}");
    }
    for bad in ["8080", "127.0.0.1", "example.org:80", "127.0.0.1:99999"] {
        assert!(refused(&["--listen", bad], &[]).contains("--listen"), "{bad}");
    }
}

#[test]
fn a_default_beyond_its_maximum_is_refused_and_a_built_in_one_gives_way() {
    let message = refused(&["--default-memory-mb", "100", "--max-memory-mb", "50"], &[]);
    assert!(message.contains("default_memory_mb"), "{message}");
    assert_eq!(config(&["--max-memory-mb", "50"], &[]).unwrap().limits.memory_mb.default, 50);
}

#[test]
fn an_ordinary_user_keeps_its_data_at_home() {
    let at = |environment: &[(&str, &str)]| match invocation(&[], environment, false) {
        Ok(Invocation::Serve(config)) => config.data_dir.to_str().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(at(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "/data")]), "/data/faas");
    assert_eq!(at(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "relative")]), "/home/ann/.local/share/faas");
    assert!(at(&[]).contains("data_dir"));
}

#[test]
fn help_and_version_are_printed() {
    for (argument, expected) in [("--help", "--max-body-bytes"), ("--version", env!("CARGO_PKG_VERSION"))] {
        match invocation(&[argument], &[], true).unwrap() {
            Invocation::Print(text) => assert!(text.contains(expected), "{text}"),
            other => panic!("{argument}: {other:?}"),
        }
    }
}

#[test]
fn every_option_is_taken_from_each_place() {
    let known: BTreeMap<_, _> =
        super::environment::names().into_iter().map(|name| (name.clone(), name)).collect();
    assert!(known.len() > 20 && known.contains_key("listen"));
    let text = "listen = \"127.0.0.1:1\"\ndata_dir = \"/d\"\nruntime = \"native\"\n";
    let (_file, path) = file(text);
    let config = config(&["--config", &path], &[]).unwrap();
    assert_eq!((config.listen.port(), config.data_dir.to_str()), (1, Some("/d")));
}

#[cfg(all(target_os = "linux", feature = "native"))]
#[test]
fn images_are_had_as_it_is_said() {
    use faas_executor::PullPolicy;
    let usual = config(&[], &[]).unwrap();
    assert_eq!((usual.pull, usual.images.max_bytes), (PullPolicy::IfMissing, 20 << 30));
    assert!(usual.images.insecure_registries.is_empty() && usual.images.docker_config.is_none());
    let (_file, path) = file("insecure_registries = [\"a:5000\"]\nmax_images_mb = 5\npull = \"if-missing\"");
    let given =
        config(&["--config", &path], &[("FAAS_PULL", "never"), ("FAAS_PULL_TIMEOUT_MS", "7")]).unwrap();
    assert_eq!((given.pull, given.images.max_bytes), (PullPolicy::Never, 5 << 20));
    assert_eq!(given.images.insecure_registries, ["a:5000"]);
    assert_eq!(given.images.pull_timeout.as_millis(), 7);
    let several = config(&["--insecure-registries", "localhost:5000,b.example"], &[]).unwrap();
    assert_eq!(several.images.insecure_registries, ["localhost:5000", "b.example"]);
    for wrong in ["http://a.example", "a.example/b", "name", ""] {
        assert!(refused(&["--insecure-registries", wrong], &[]).contains("registr"), "{wrong}");
    }
    assert!(refused(&["--pull", "sometimes"], &[]).contains("sometimes"));
    assert!(refused(&["--default-image", "UPPER"], &[]).contains("default_image"));
}

#[cfg(all(target_os = "linux", feature = "native"))]
#[test]
fn credentials_are_where_dockers_own_client_has_them() {
    let at = |environment: &[(&str, &str)]| {
        let file = config(&[], environment).unwrap().images.docker_config;
        file.map(|path| path.to_str().unwrap().to_owned())
    };
    assert_eq!(at(&[("HOME", "/h")]).as_deref(), Some("/h/.docker/config.json"));
    assert_eq!(at(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")]).as_deref(), Some("/d/config.json"));
    assert_eq!(at(&[("FAAS_REGISTRY_AUTH_FILE", "/f")]).as_deref(), Some("/f"));
}

#[cfg(feature = "docker")]
mod docker {
    use faas_executor::docker::{EngineAddress, TransportChoice};

    use super::{config, file, refused};

    #[test]
    fn an_engine_is_used_where_it_usually_is_unless_it_is_said_otherwise() {
        let docker = config(&[], &[]).unwrap().docker.unwrap();
        assert_eq!(docker.host, EngineAddress::Unix("/var/run/docker.sock".into()));
        assert_eq!(docker.transport, TransportChoice::Auto);
        assert_eq!((docker.runtime, docker.auth_file), (None, None));
        assert!(config(&["--docker-host", "none"], &[]).unwrap().docker.is_none());
        let (_file, path) = file("docker_host = \"tcp://127.0.0.1:2375\"\ndocker_transport = \"attach\"");
        let docker = config(&["--config", &path, "--docker-runtime", "runsc"], &[]).unwrap().docker.unwrap();
        assert_eq!(docker.host, EngineAddress::Tcp("127.0.0.1:2375".into()));
        assert_eq!(docker.transport, TransportChoice::Attach);
        assert_eq!(docker.runtime.as_deref(), Some("runsc"));
    }

    #[test]
    fn the_environment_of_dockers_own_client_is_read() {
        let host = |arguments: &[&str], environment: &[(&str, &str)]| {
            config(arguments, environment).unwrap().docker.unwrap().host
        };
        let tls = |certs: &str| EngineAddress::Tls { address: "h:2376".into(), certs: certs.into() };
        let (tcp, verify) = (("DOCKER_HOST", "tcp://h:2376"), ("DOCKER_TLS_VERIFY", "1"));
        assert_eq!(host(&[], &[tcp]), EngineAddress::Tcp("h:2376".into()));
        assert_eq!(host(&[], &[tcp, verify, ("DOCKER_CERT_PATH", "/c")]), tls("/c"));
        assert_eq!(host(&[], &[tcp, verify, ("HOME", "/h")]), tls("/h/.docker"));
        assert_eq!(host(&[], &[tcp, ("DOCKER_TLS_VERIFY", "")]), EngineAddress::Tcp("h:2376".into()));
        let other = ["--docker-host", "unix:///x"];
        assert_eq!(host(&other, &[tcp, verify, ("HOME", "/h")]), EngineAddress::Unix("/x".into()));
        assert_eq!(host(&["--docker-host", "tcp://h:2376"], &[verify, ("HOME", "/h")]), tls("/h/.docker"));
        assert!(refused(&[], &[("DOCKER_HOST", "ssh://h")]).contains("docker_host"));
        assert!(refused(&[], &[tcp, verify]).contains("DOCKER_CERT_PATH"));
    }

    #[test]
    fn what_is_no_engine_is_refused() {
        assert!(refused(&["--docker-host", "ssh://host"], &[]).contains("SSH is not spoken"));
        assert!(refused(&["--docker-host", "/var/run/docker.sock"], &[]).contains("unix:///PATH"));
        assert!(refused(&["--docker-runtime", ""], &[]).contains("docker"));
    }
}

/// `FAAS_UPDATE=1` writes the page anew. The page is that of a build with every runtime.
#[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
#[test]
fn the_reference_page_is_that_of_the_options() {
    crate::openapi::assert_checked_in("docs/configuration.md", &super::reference::markdown());
}

#[cfg(feature = "native")]
#[test]
fn images_takes_the_options_of_the_store_from_each_place_and_no_others() {
    use super::ImagesCommand;
    let (_file, path) = file("data_dir = \"/of/the/file\"\nmax_images_mb = 7\nlisten = \"127.0.0.1:1\"\n");
    let environment = [("FAAS_MAX_IMAGES_MB", "8"), ("HOME", "/root")];
    let arguments =
        ["images", "import", "-", "--name", "a:1", "--config", &path, "--json", "--pull-timeout-ms=9"];
    let Invocation::Images(config, command, output) = invocation(&arguments, &environment, true).unwrap()
    else {
        panic!("not the images' command")
    };
    assert_eq!(command, ImagesCommand::Import { path: "-".into(), name: Some("a:1".to_owned()) });
    assert_eq!((config.data_dir.to_str(), config.images.max_bytes), (Some("/of/the/file"), 8 << 20));
    assert_eq!(config.images.pull_timeout.as_millis(), 9);
    assert!(output.json && !output.quiet);
    assert!(refused(&["images"], &[]).contains("subcommand"));
    assert!(refused(&["images", "eat", "x"], &[]).contains("eat"));
    assert!(refused(&["images", "pull"], &[]).contains("<NAME>"), "{}", refused(&["images", "pull"], &[]));
    assert!(refused(&["images", "list", "--listen", "127.0.0.1:1"], &[]).contains("--listen"));
    let help = invocation(&["images", "--help"], &[], true).unwrap();
    assert!(
        matches!(help, Invocation::Print(text) if text.contains("import") && text.contains("--data-dir"))
    );
}
