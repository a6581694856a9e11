//! The options as they can be given: as arguments, as `FAAS_*`, in the TOML file. Their doc comments are `--help` and
//! `docs/configuration.md`; a `Default:` line there is checked against the code by a test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use faas_executor::PullPolicy;
use faas_executor::store::DatabaseUrl;
use faas_types::RuntimeChoice;
use serde::Deserialize;

/// Runs commands in sandboxes over HTTP.
///
/// Every option can also be given as an environment variable (`--max-body-bytes` is `FAAS_MAX_BODY_BYTES`) or in a TOML
/// file (`max_body_bytes = 1048576`). An argument wins over the environment, the environment over the file, the file
/// over the default. `RUST_LOG` filters the log (default `info`).
///
/// When it is ready the server prints `listening on http://HOST:PORT` to standard output; its log goes to standard
/// error. SIGTERM and SIGINT end it when the running requests are answered, a second one ends it at once.
///
/// `faas-gateway-server images --help` tells how the images of a data directory are listed, pulled, imported and removed.
///
/// Exit codes: 0 stopped, 64 bad configuration or a data directory in use, 1 cannot start for another reason (the port
/// is taken, or the database cannot be reached, for example), 130 or 143 ended at once by a second signal.
#[derive(Clone, Debug, Default, PartialEq, Parser, Deserialize)]
#[command(name = "faas-gateway-server", version, max_term_width = 100)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Address to listen on: an IP address or `localhost`, and a port; port 0 picks a free one. Only loopback
    /// addresses: this version has no authentication. Default: 127.0.0.1:8080
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<Listen>,

    /// Where everything that lasts is kept. One gateway per directory. Default: `/var/lib/faas` as root,
    /// `$XDG_DATA_HOME/faas` (or `~/.local/share/faas`) otherwise.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// The PostgreSQL database for all that has to last but images: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with
    /// `?sslmode=verify-full` for a server that is not near, or `?host=DIR` for its socket. It must exist and be this
    /// gateway's alone. What the URL leaves out is taken from PostgreSQL's own variables (`PGPASSWORD`, for example). As
    /// an argument it can be seen by every user of the machine. Default: SQLite, in the file `store.db` of the data
    /// directory
    #[arg(long, value_name = "URL")]
    pub database_url: Option<DatabaseUrl>,

    /// How long the answer to a request with `idempotency-key` is kept, in milliseconds. Default: 86400000, a day, which
    /// is the most
    #[arg(long, value_name = "MS")]
    pub idempotency_ttl_ms: Option<u64>,

    /// How many events of instances and executions are kept for those who follow them or come back; the oldest are removed,
    /// within ten minutes. Default: 100000
    #[arg(long, value_name = "N")]
    pub max_events: Option<u64>,

    /// How long they are kept, in milliseconds; at most a year. Default: 604800000, a week
    #[arg(long, value_name = "MS")]
    pub event_ttl_ms: Option<u64>,

    /// A TOML file with any of the other options, with `_` for `-` in their names. Not an option of the file itself.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The runtime for requests that ask for `auto`: `auto`, `native`, `docker` or `firecracker`. Default: auto
    #[arg(long, value_name = "NAME", value_parser = runtime_choice)]
    pub runtime: Option<RuntimeChoice>,

    /// The image for requests that name none. Default: host, or `alpine` in a build without the native runtime
    #[arg(long, value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// How many executions run at once; more wait in the order in which they came. Default: four for each core, at
    /// least 16, since most executions wait more than they compute and their CPU limit holds each to its share.
    #[arg(long, value_name = "N")]
    pub max_concurrent: Option<u64>,

    /// How many executions may wait; more are refused with 503 `overloaded`. Default: 1024
    #[arg(long, value_name = "N")]
    pub max_queued: Option<u64>,

    /// How many instances there may be; one more is refused with 429 `quota_exceeded`. Default: 256
    #[arg(long, value_name = "N")]
    pub max_instances: Option<u64>,

    /// How much output of each lasting execution is kept, in MiB; the oldest goes first. It is in the data directory.
    /// Default: 8
    #[arg(long, value_name = "MIB")]
    pub execution_output_mb: Option<u64>,

    /// How much output of all lasting executions is kept together, in MiB; the oldest goes first. Default: 1024
    #[arg(long, value_name = "MIB")]
    pub total_output_mb: Option<u64>,

    /// How many places for native sandboxes are kept ready. More means faster bursts, each costs a parked process of
    /// some 100 KiB. Default: two for each core, at least 8.
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[arg(long, value_name = "N")]
    pub native_slots: Option<u64>,

    /// The Docker engine for the runtime `docker`: `unix:///PATH`, `tcp://HOST:PORT`, or `none` to use no engine. With
    /// `DOCKER_TLS_VERIFY` in the environment a TCP port is spoken to over TLS, with `ca.pem`, `cert.pem` and `key.pem` of
    /// `$DOCKER_CERT_PATH` or else `~/.docker`; without, it is not encrypted. The engine is looked for again and again, so
    /// it may be started later. Default: `$DOCKER_HOST`, or unix:///var/run/docker.sock
    #[cfg(feature = "docker")]
    #[arg(long, value_name = "ADDRESS")]
    pub docker_host: Option<DockerHost>,

    /// How the guest agents in containers are reached: by their `socket` (the engine is this host's and the server is
    /// root), by `attach` through the engine, or `auto`: by the first where that can be. Default: auto
    #[cfg(feature = "docker")]
    #[arg(long, value_name = "WAY", value_enum)]
    pub docker_transport: Option<DockerTransport>,

    /// The engine's runtime for containers, by the name that it is registered with there (`runsc` for example).
    /// Default: the engine's default.
    #[cfg(feature = "docker")]
    #[arg(long, value_name = "NAME")]
    pub docker_runtime: Option<String>,

    /// When an image is fetched from its registry for an execution: `if-missing`, `always` (before each execution) or
    /// `never` (it has to be pulled or imported before). Default: if-missing
    #[arg(long, value_name = "WHEN", value_enum)]
    pub pull: Option<Pull>,

    /// Docker's own file with credentials for registries; those of a registry are shown to that registry alone. Programs
    /// that keep credentials are not run. Default: `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
    #[arg(long, value_name = "FILE")]
    pub registry_auth_file: Option<PathBuf>,

    /// Registries, `HOST` or `HOST:PORT`, that are spoken to over plain HTTP; several are separated by commas (in the
    /// file: a list). Docker engines have a setting of their own for that. Default: none
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[arg(long, value_name = "REGISTRIES", value_delimiter = ',')]
    pub insecure_registries: Option<Vec<String>>,

    /// How long a pull may take as a whole, in milliseconds. Default: 1800000
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[arg(long, value_name = "MS")]
    pub pull_timeout_ms: Option<u64>,

    /// The most disk that images take in the data directory, in MiB. Those that no sandbox uses make room for new ones,
    /// the least recently used first. The largest archive that can be imported is as large. Default: 20480
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[arg(long, value_name = "MIB")]
    pub max_images_mb: Option<u64>,

    /// The longest request body in bytes; a longer one is refused with 413. Default: 16777216
    #[arg(long, value_name = "BYTES")]
    pub max_body_bytes: Option<u64>,

    /// The most bytes of request bodies that are held at once, those below 64 KiB not counted. A request whose body does
    /// not fit waits as long as a body may take, and is then refused with 503 `overloaded`. Default: 268435456
    #[arg(long, value_name = "BYTES")]
    pub max_body_bytes_total: Option<u64>,

    /// The most bytes of answers that are held at once until their clients have read them, those below 64 KiB not
    /// counted. An execution whose answer does not fit waits with it. Default: 536870912
    #[arg(long, value_name = "BYTES")]
    pub max_answer_bytes_total: Option<u64>,

    /// How many connections are served at once; more wait to be accepted. Default: 4096
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u64>,

    /// How long a client may take to send a request's head, and then its body, and how long it may take in nothing of
    /// an answer, in milliseconds. A connection that stays idle as long is closed. Default: 30000
    #[arg(long, value_name = "MS")]
    pub read_timeout_ms: Option<u64>,

    /// `timeout_ms` of an execution that names none. Default: 30000
    #[arg(long, value_name = "MS")]
    pub default_timeout_ms: Option<u64>,

    /// The largest `timeout_ms` that can be asked for. Default: 3600000
    #[arg(long, value_name = "MS")]
    pub max_timeout_ms: Option<u64>,

    /// `memory_mb` of an execution that names none, in MiB. Default: 512
    #[arg(long, value_name = "MIB")]
    pub default_memory_mb: Option<u64>,

    /// The largest `memory_mb` that can be asked for. Default: the host's memory.
    #[arg(long, value_name = "MIB")]
    pub max_memory_mb: Option<u64>,

    /// `cpu_cores` of an execution that names none; fractions are allowed. Default: 1
    #[arg(long, value_name = "CORES")]
    pub default_cpu_cores: Option<f64>,

    /// The largest `cpu_cores` that can be asked for. Default: the host's cores.
    #[arg(long, value_name = "CORES")]
    pub max_cpu_cores: Option<f64>,

    /// `pids_limit` of an execution that names none. Default: 256
    #[arg(long, value_name = "N")]
    pub default_pids_limit: Option<u64>,

    /// The largest `pids_limit` that can be asked for. Default: the host's `kernel.pid_max`.
    #[arg(long, value_name = "N")]
    pub max_pids_limit: Option<u64>,

    /// The largest `disk_mb` that can be asked for, in MiB. Default: 10240
    #[arg(long, value_name = "MIB")]
    pub max_disk_mb: Option<u64>,

    /// `max_output_bytes` of an execution that names none. Default: 1048576
    #[arg(long, value_name = "BYTES")]
    pub default_output_bytes: Option<u64>,

    /// The largest `max_output_bytes` that can be asked for. Default: 16777216
    #[arg(long, value_name = "BYTES")]
    pub max_output_bytes: Option<u64>,

    /// How long running requests may go on after SIGTERM or SIGINT, in milliseconds; then they are ended.
    /// Default: 30000
    #[arg(long, value_name = "MS")]
    pub drain_timeout_ms: Option<u64>,

    /// How log lines look. Default: text
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

impl Options {
    /// These, and those of `lower` where these have none.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            data_dir: self.data_dir.or(lower.data_dir),
            database_url: self.database_url.or(lower.database_url),
            idempotency_ttl_ms: self.idempotency_ttl_ms.or(lower.idempotency_ttl_ms),
            max_events: self.max_events.or(lower.max_events),
            event_ttl_ms: self.event_ttl_ms.or(lower.event_ttl_ms),
            config: self.config.or(lower.config),
            runtime: self.runtime.or(lower.runtime),
            default_image: self.default_image.or(lower.default_image),
            max_concurrent: self.max_concurrent.or(lower.max_concurrent),
            max_queued: self.max_queued.or(lower.max_queued),
            max_instances: self.max_instances.or(lower.max_instances),
            execution_output_mb: self.execution_output_mb.or(lower.execution_output_mb),
            total_output_mb: self.total_output_mb.or(lower.total_output_mb),
            #[cfg(all(target_os = "linux", feature = "native"))]
            native_slots: self.native_slots.or(lower.native_slots),
            #[cfg(feature = "docker")]
            docker_host: self.docker_host.or(lower.docker_host),
            #[cfg(feature = "docker")]
            docker_transport: self.docker_transport.or(lower.docker_transport),
            #[cfg(feature = "docker")]
            docker_runtime: self.docker_runtime.or(lower.docker_runtime),
            pull: self.pull.or(lower.pull),
            registry_auth_file: self.registry_auth_file.or(lower.registry_auth_file),
            #[cfg(all(target_os = "linux", feature = "native"))]
            insecure_registries: self.insecure_registries.or(lower.insecure_registries),
            #[cfg(all(target_os = "linux", feature = "native"))]
            pull_timeout_ms: self.pull_timeout_ms.or(lower.pull_timeout_ms),
            #[cfg(all(target_os = "linux", feature = "native"))]
            max_images_mb: self.max_images_mb.or(lower.max_images_mb),
            max_body_bytes: self.max_body_bytes.or(lower.max_body_bytes),
            max_body_bytes_total: self.max_body_bytes_total.or(lower.max_body_bytes_total),
            max_answer_bytes_total: self.max_answer_bytes_total.or(lower.max_answer_bytes_total),
            max_connections: self.max_connections.or(lower.max_connections),
            read_timeout_ms: self.read_timeout_ms.or(lower.read_timeout_ms),
            default_timeout_ms: self.default_timeout_ms.or(lower.default_timeout_ms),
            max_timeout_ms: self.max_timeout_ms.or(lower.max_timeout_ms),
            default_memory_mb: self.default_memory_mb.or(lower.default_memory_mb),
            max_memory_mb: self.max_memory_mb.or(lower.max_memory_mb),
            default_cpu_cores: self.default_cpu_cores.or(lower.default_cpu_cores),
            max_cpu_cores: self.max_cpu_cores.or(lower.max_cpu_cores),
            default_pids_limit: self.default_pids_limit.or(lower.default_pids_limit),
            max_pids_limit: self.max_pids_limit.or(lower.max_pids_limit),
            max_disk_mb: self.max_disk_mb.or(lower.max_disk_mb),
            default_output_bytes: self.default_output_bytes.or(lower.default_output_bytes),
            max_output_bytes: self.max_output_bytes.or(lower.max_output_bytes),
            drain_timeout_ms: self.drain_timeout_ms.or(lower.drain_timeout_ms),
            log_format: self.log_format.or(lower.log_format),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match text.strip_prefix("localhost:") {
            Some(port) => {
                port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
            }
            None => text.parse().ok(),
        };
        let address = address.ok_or_else(|| {
            format!(
                "{text:?} is no HOST:PORT with an IP address or localhost and a port, like 127.0.0.1:8080"
            )
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{address} is not a loopback address, and this version has no authentication; listen on 127.0.0.1 \
                 or [::1]"
            ));
        }
        Ok(Self(address))
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(feature = "docker")]
pub use docker::{DockerHost, DockerTransport};

#[cfg(feature = "docker")]
mod docker {
    use std::str::FromStr;

    use clap::ValueEnum;
    use faas_executor::docker::{EngineAddress, TransportChoice};
    use serde::Deserialize;

    /// Where the engine is, or that none is to be used.
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(try_from = "String")]
    pub struct DockerHost(pub Option<EngineAddress>);

    impl FromStr for DockerHost {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            if text == "none" {
                return Ok(Self(None));
            }
            text.parse().map(|address| Self(Some(address))).map_err(|error| format!("{error}, nor `none`"))
        }
    }

    impl TryFrom<String> for DockerHost {
        type Error = String;

        fn try_from(text: String) -> Result<Self, Self::Error> {
            text.parse()
        }
    }

    /// How guest agents are reached.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum DockerTransport {
        /// By the socket where that can be, otherwise attached.
        #[default]
        Auto,
        /// By the agent's socket.
        Socket,
        /// Through the engine.
        Attach,
    }

    impl From<DockerTransport> for TransportChoice {
        fn from(given: DockerTransport) -> Self {
            match given {
                DockerTransport::Auto => Self::Auto,
                DockerTransport::Socket => Self::Socket,
                DockerTransport::Attach => Self::Attach,
            }
        }
    }
}

/// When images are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// When they are not there.
    #[default]
    #[value(alias = "if_missing")]
    #[serde(alias = "if_missing")]
    IfMissing,
    /// Before each execution.
    Always,
    /// Not at all.
    Never,
}

impl From<Pull> for PullPolicy {
    fn from(given: Pull) -> Self {
        match given {
            Pull::IfMissing => Self::IfMissing,
            Pull::Always => Self::Always,
            Pull::Never => Self::Never,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn runtime_choice(text: &str) -> Result<RuntimeChoice, String> {
    let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    RuntimeChoice::deserialize(value).map_err(|error| error.to_string())
}
