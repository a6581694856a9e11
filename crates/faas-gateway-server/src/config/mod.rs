//! The configuration: the only place that reads the environment and the configuration file.
//!
//! An argument wins over `FAAS_*`, that over the file, that over the default. Whatever is unknown or cannot be is an
//! error of one line, before anything is opened or bound.

mod environment;
mod file;
#[cfg(all(target_os = "linux", feature = "native"))]
mod images_command;
mod options;
pub mod reference;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
#[cfg(feature = "docker")]
use faas_executor::docker::DockerConfig;
#[cfg(all(target_os = "linux", feature = "native"))]
use faas_executor::images::{ImageName, ImageStoreConfig};
use faas_executor::sandbox::Limits;
use faas_executor::store::DatabaseUrl;
use faas_executor::{EventRetention, PullPolicy};
use faas_types::RuntimeChoice;
use tracing_subscriber::EnvFilter;

#[cfg(all(target_os = "linux", feature = "native"))]
pub use images_command::{ImagesCommand, Output};
#[cfg(feature = "docker")]
pub use options::{DockerHost, DockerTransport};
pub use options::{Listen, LogFormat, Options, Pull};

const MIB: u64 = 1 << 20;

/// The least memory a sandbox can be given, in MiB: the guest agent and a shell need some of it.
pub const MIN_MEMORY_MB: u64 = 8;

/// The least CPU a sandbox can be given, in thousandths of a core: the kernel's smallest quota.
pub const MIN_CPU_MILLICORES: u32 = 10;

/// The fewest PIDs a sandbox can be given: the guest agent's three processes count, and the command is the fourth.
pub const MIN_PIDS: u32 = 4;

/// The smallest disk a sandbox can be given, in MiB: below that a file system has no room for files.
pub const MIN_DISK_MB: u64 = 4;

/// The image for requests that name none, where no other is configured: one that a runtime of this build has.
const DEFAULT_IMAGE: &str =
    if cfg!(all(target_os = "linux", feature = "native")) { "host" } else { "alpine" };

/// Why the configuration cannot be used. One line each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An argument that is unknown or has a bad value.
    #[error("{0} (--help lists the options)")]
    Argument(String),
    /// A variable of the environment.
    #[error("{name}: {reason}")]
    Environment {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration file, or one key of it.
    #[error("{}: {reason}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
    /// Options that are good each and bad together, or beyond the host.
    #[error("{option}: {reason}")]
    Value {
        /// The option by its name in the file.
        option: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Invocation {
    /// To serve.
    Serve(Box<Config>),
    /// To see to the images of a data directory and end.
    #[cfg(all(target_os = "linux", feature = "native"))]
    Images(Box<Config>, ImagesCommand, Output),
    /// To print this and end: `--help` or `--version`.
    Print(String),
}

/// What the configuration depends on besides the arguments.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whether this is root.
    pub root: bool,
    /// The host's size.
    pub host: Limits,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            environment: std::env::vars_os().collect(),
            root: rustix::process::geteuid().is_root(),
            host: faas_executor::platform::host::limits(),
        }
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }
}

/// A limit that a request may set: what it is when the request does not, and the most that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound<T> {
    /// When the request names none.
    pub default: T,
    /// The most.
    pub max: T,
}

/// The limits of executions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRules {
    /// Wall time in milliseconds.
    pub timeout_ms: Bound<u64>,
    /// Memory in MiB.
    pub memory_mb: Bound<u64>,
    /// CPU in thousandths of a core.
    pub cpu_millicores: Bound<u32>,
    /// Processes and threads.
    pub pids: Bound<u32>,
    /// The most disk in MiB.
    pub max_disk_mb: u64,
    /// Bytes kept of each of stdout and stderr.
    pub output_bytes: Bound<u64>,
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Where everything that lasts is kept.
    pub data_dir: PathBuf,
    /// The database for what lasts, where it is not a file in the data directory.
    pub database_url: Option<DatabaseUrl>,
    /// How long the answer to a request with an idempotency key is kept.
    pub idempotency_ttl: Duration,
    /// How many lifecycle events are kept.
    pub events: EventRetention,
    /// The runtime for `auto`.
    pub runtime: RuntimeChoice,
    /// The image for requests that name none.
    pub default_image: String,
    /// How many executions run at once.
    pub max_concurrent: usize,
    /// How many may wait.
    pub max_queued: usize,
    /// How many instances there may be.
    pub max_instances: usize,
    /// How much output of lasting executions is kept.
    pub outputs: faas_executor::OutputBudget,
    /// Launcher slots kept ready.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub native_slots: usize,
    /// The Docker engine to be used, if one is.
    #[cfg(feature = "docker")]
    pub docker: Option<DockerConfig>,
    /// Where images come from and how much of them is kept.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub images: ImageStoreConfig,
    /// Whether an execution whose image is not there has it fetched.
    pub pull: PullPolicy,
    /// The longest request body.
    pub max_body_bytes: u64,
    /// The most bytes of large request bodies that are held at once.
    pub max_body_bytes_total: u64,
    /// The most bytes of large answers that are held at once.
    pub max_answer_bytes_total: u64,
    /// How many connections are served at once.
    pub max_connections: usize,
    /// How long a client may take for a request's head, for its body, and to take in any part of an answer.
    pub read_timeout: Duration,
    /// The limits of executions.
    pub limits: LimitRules,
    /// How long running requests may go on during a shutdown.
    pub drain_timeout: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The directives of `RUST_LOG`, checked.
    pub log_filter: String,
}

impl Config {
    /// From the arguments (the program's name first) and the surroundings; reads the file that they name.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_process(
        arguments: impl IntoIterator<Item = OsString>,
        surroundings: &Surroundings,
    ) -> Result<Invocation, ConfigError> {
        let mut arguments = arguments.into_iter().peekable();
        let program = arguments.next();
        #[cfg(all(target_os = "linux", feature = "native"))]
        if arguments.peek().is_some_and(|first| first == images_command::WORD) {
            return match parsed(images_command::parse(arguments.skip(1)))? {
                Ok((command, output, given)) => {
                    let config = Self::read(given, surroundings)?;
                    Ok(Invocation::Images(Box::new(config), command, output))
                }
                Err(text) => Ok(Invocation::Print(text)),
            };
        }
        match parsed(Options::try_parse_from(program.into_iter().chain(arguments)))? {
            Ok(given) => Ok(Invocation::Serve(Box::new(Self::read(given, surroundings)?))),
            Err(text) => Ok(Invocation::Print(text)),
        }
    }

    /// From the arguments' options, the environment and the file that either of them names.
    fn read(arguments: Options, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let given = arguments.or(environment::read(&surroundings.environment)?);
        let given = match given.config.clone() {
            Some(path) => given.or(file::read(&path)?),
            None => given,
        };
        Self::resolve(given, surroundings)
    }

    /// Fills in the defaults and checks what belongs together.
    ///
    /// # Errors
    /// [`ConfigError::Value`], or [`ConfigError::Environment`] for `RUST_LOG`.
    pub fn resolve(options: Options, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let limits = limit_rules(&options, &surroundings.host)?;
        #[cfg(feature = "docker")]
        let docker = docker(&options, surroundings)?;
        #[cfg(all(target_os = "linux", feature = "native"))]
        let images = images(&options, surroundings)?;
        let pull = options.pull.unwrap_or_default().into();
        let cores = u64::from(surroundings.host.cpu_millicores / 1000).max(1);
        let default_image = options.default_image.unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        if let Some(reason) = crate::validate::image_problem(&default_image) {
            return Err(ConfigError::Value { option: "default_image", reason });
        }
        let max_concurrent = options.max_concurrent.unwrap_or((4 * cores).max(16));
        #[cfg(all(target_os = "linux", feature = "native"))]
        let native_slots = options.native_slots.unwrap_or((2 * cores).max(8));
        let max_body_bytes =
            within("max_body_bytes", options.max_body_bytes.unwrap_or(16 * MIB), 1, 1024 * MIB)?;
        Ok(Self {
            listen: options.listen.map_or(SocketAddr::from(([127, 0, 0, 1], 8080)), |listen| listen.0),
            data_dir: match options.data_dir {
                Some(dir) if dir.as_os_str().is_empty() => {
                    return Err(ConfigError::Value { option: "data_dir", reason: "it is empty".to_owned() });
                }
                Some(dir) => dir,
                None => default_data_dir(surroundings)?,
            },
            database_url: match options.database_url {
                Some(url) => {
                    url.check().map_err(|reason| ConfigError::Value { option: "database_url", reason })?;
                    Some(url)
                }
                None => None,
            },
            idempotency_ttl: milliseconds(
                "idempotency_ttl_ms",
                options.idempotency_ttl_ms.unwrap_or(DAY_MS),
                1,
            )?,
            events: EventRetention {
                max_events: within("max_events", options.max_events.unwrap_or(100_000), 1, 100_000_000)?
                    .try_into()
                    .unwrap_or(u32::MAX),
                ttl: Duration::from_millis(within(
                    "event_ttl_ms",
                    options.event_ttl_ms.unwrap_or(7 * DAY_MS),
                    1,
                    365 * DAY_MS,
                )?),
            },
            runtime: options.runtime.unwrap_or_default(),
            default_image,
            max_concurrent: within("max_concurrent", max_concurrent, 1, 100_000)? as usize,
            max_queued: within("max_queued", options.max_queued.unwrap_or(1024), 0, 1_000_000)? as usize,
            outputs: faas_executor::OutputBudget {
                each_bytes: within(
                    "execution_output_mb",
                    options.execution_output_mb.unwrap_or(8),
                    1,
                    16 << 10,
                )? << 20,
                all_bytes: within("total_output_mb", options.total_output_mb.unwrap_or(1024), 1, 64 << 20)?
                    << 20,
            },
            max_instances: within("max_instances", options.max_instances.unwrap_or(256), 0, 100_000)?
                as usize,
            #[cfg(all(target_os = "linux", feature = "native"))]
            native_slots: within("native_slots", native_slots, 1, 1000)? as usize,
            #[cfg(feature = "docker")]
            docker,
            #[cfg(all(target_os = "linux", feature = "native"))]
            images,
            pull,
            max_body_bytes,
            max_body_bytes_total: within(
                "max_body_bytes_total",
                options.max_body_bytes_total.unwrap_or((256 * MIB).max(max_body_bytes)),
                max_body_bytes,
                1 << 40,
            )?,
            max_answer_bytes_total: within(
                "max_answer_bytes_total",
                options.max_answer_bytes_total.unwrap_or(512 * MIB),
                MIB,
                1 << 40,
            )?,
            max_connections: within("max_connections", options.max_connections.unwrap_or(4096), 1, 1_000_000)?
                as usize,
            read_timeout: milliseconds("read_timeout_ms", options.read_timeout_ms.unwrap_or(30_000), 1)?,
            limits,
            drain_timeout: milliseconds("drain_timeout_ms", options.drain_timeout_ms.unwrap_or(30_000), 0)?,
            log_format: options.log_format.unwrap_or_default(),
            log_filter: log_filter(surroundings)?,
        })
    }
}

/// What clap read; the inner `Err` is a text that was asked for with `--help` or `--version`.
fn parsed<T>(read: Result<T, clap::Error>) -> Result<Result<T, String>, ConfigError> {
    use clap::error::ErrorKind;
    match read {
        Ok(options) => Ok(Ok(options)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(ConfigError::Argument(one_line(&error))),
    }
}

/// Where an engine listens on a host that was set up in the usual way.
#[cfg(feature = "docker")]
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

#[cfg(feature = "docker")]
fn docker(options: &Options, surroundings: &Surroundings) -> Result<Option<DockerConfig>, ConfigError> {
    let host = match &options.docker_host {
        None => engine_of_dockers_client(surroundings)?,
        Some(DockerHost(Some(address))) => address.clone(),
        Some(DockerHost(None)) => return Ok(None),
    };
    let host = match surroundings.variable("DOCKER_TLS_VERIFY") {
        None => host,
        Some(_) => {
            let certs = surroundings.variable("DOCKER_CERT_PATH").map(PathBuf::from);
            let certs =
                certs.or_else(|| docker_dir(surroundings)).ok_or_else(|| ConfigError::Environment {
                    name: "DOCKER_TLS_VERIFY".to_owned(),
                    reason: "there is no home directory with certificates; set DOCKER_CERT_PATH".to_owned(),
                })?;
            host.with_tls(certs)
        }
    };
    let runtime = options.docker_runtime.clone();
    if runtime.as_ref().is_some_and(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        let reason = "it is empty or contains white space".to_owned();
        return Err(ConfigError::Value { option: "docker_runtime", reason });
    }
    Ok(Some(DockerConfig {
        host,
        transport: options.docker_transport.unwrap_or_default().into(),
        runtime,
        auth_file: auth_file(options, surroundings),
    }))
}

/// The engine that Docker's own client would use.
#[cfg(feature = "docker")]
fn engine_of_dockers_client(
    surroundings: &Surroundings,
) -> Result<faas_executor::docker::EngineAddress, ConfigError> {
    use faas_executor::docker::EngineAddress;
    let Some(host) = surroundings.variable("DOCKER_HOST") else {
        return Ok(EngineAddress::Unix(PathBuf::from(DOCKER_SOCKET)));
    };
    host.to_string_lossy().parse().map_err(|error| ConfigError::Environment {
        name: "DOCKER_HOST".to_owned(),
        reason: format!("{error}; docker_host is used instead of it where that is given"),
    })
}

/// Where Docker's own client has its files.
fn docker_dir(surroundings: &Surroundings) -> Option<PathBuf> {
    let dir = surroundings.variable("DOCKER_CONFIG").map(PathBuf::from);
    dir.or_else(|| Some(Path::new(surroundings.variable("HOME")?).join(".docker")))
}

/// The credentials for registries, where Docker's own client finds them.
fn auth_file(options: &Options, surroundings: &Surroundings) -> Option<PathBuf> {
    let usual = || Some(docker_dir(surroundings)?.join("config.json"));
    options.registry_auth_file.clone().or_else(usual)
}

/// This very program, even when its file has been replaced or removed meanwhile.
#[cfg(all(target_os = "linux", feature = "native"))]
pub const OWN_PROGRAM: &str = "/proc/self/exe";

#[cfg(all(target_os = "linux", feature = "native"))]
fn images(options: &Options, surroundings: &Surroundings) -> Result<ImageStoreConfig, ConfigError> {
    let insecure_registries = options.insecure_registries.clone().unwrap_or_default();
    for registry in &insecure_registries {
        // As names of images have it: what is no registry there would be compared with nothing.
        let name = format!("{registry}/name");
        if !name.parse::<ImageName>().is_ok_and(|name| name.registry() == registry) {
            let reason = format!("{registry:?} is no HOST or HOST:PORT of a registry");
            return Err(ConfigError::Value { option: "insecure_registries", reason });
        }
    }
    let max_mb = within("max_images_mb", options.max_images_mb.unwrap_or(20_480), 1, u64::MAX / MIB)?;
    let pull_timeout = options.pull_timeout_ms.unwrap_or(30 * 60 * 1000);
    Ok(ImageStoreConfig {
        max_bytes: max_mb * MIB,
        max_archive_bytes: max_mb * MIB,
        insecure_registries,
        docker_config: auth_file(options, surroundings),
        pull_timeout: milliseconds("pull_timeout_ms", pull_timeout, 1)?,
        ..ImageStoreConfig::new(PathBuf::from(OWN_PROGRAM))
    })
}

/// A day: nothing here is longer.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn milliseconds(option: &'static str, value: u64, min: u64) -> Result<Duration, ConfigError> {
    within(option, value, min, DAY_MS).map(Duration::from_millis)
}

fn within(option: &'static str, value: u64, min: u64, max: u64) -> Result<u64, ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Value { option, reason: format!("{value} is not between {min} and {max}") })
}

/// A default and a maximum from what was given. A default that was not given yields to a smaller maximum.
struct Pair {
    names: [&'static str; 2],
    given: [Option<u64>; 2],
    usual: u64,
    /// The least and the most that the maximum can be.
    range: [u64; 2],
}

impl Pair {
    fn bound(self) -> Result<Bound<u64>, ConfigError> {
        let [default, max] = self.given;
        let [least, most] = self.range;
        let max = within(self.names[1], max.unwrap_or(most), least, most)?;
        let default = within(self.names[0], default.unwrap_or(self.usual.clamp(least, max)), least, max)?;
        Ok(Bound { default, max })
    }
}

fn limit_rules(options: &Options, host: &Limits) -> Result<LimitRules, ConfigError> {
    // The ranges below end within 32 bits.
    let u32 = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let narrow = |bound: Bound<u64>| Bound { default: u32(bound.default), max: u32(bound.max) };
    let cores = |option, value: Option<f64>| value.map(|cores| millicores(option, cores)).transpose();
    let mut timeout_max = options.max_timeout_ms;
    timeout_max.get_or_insert(60 * 60 * 1000);
    let mut output_max = options.max_output_bytes;
    output_max.get_or_insert(16 * MIB);
    Ok(LimitRules {
        timeout_ms: Pair {
            names: ["default_timeout_ms", "max_timeout_ms"],
            given: [options.default_timeout_ms, timeout_max],
            usual: 30_000,
            range: [1, 30 * DAY_MS],
        }
        .bound()?,
        memory_mb: Pair {
            names: ["default_memory_mb", "max_memory_mb"],
            given: [options.default_memory_mb, options.max_memory_mb],
            usual: 512,
            range: [MIN_MEMORY_MB, host.memory_bytes / MIB],
        }
        .bound()?,
        cpu_millicores: narrow(
            Pair {
                names: ["default_cpu_cores", "max_cpu_cores"],
                given: [
                    cores("default_cpu_cores", options.default_cpu_cores)?,
                    cores("max_cpu_cores", options.max_cpu_cores)?,
                ],
                usual: 1000,
                range: [MIN_CPU_MILLICORES.into(), host.cpu_millicores.into()],
            }
            .bound()
            .map_err(in_cores)?,
        ),
        pids: narrow(
            Pair {
                names: ["default_pids_limit", "max_pids_limit"],
                given: [options.default_pids_limit, options.max_pids_limit],
                usual: 256,
                range: [MIN_PIDS.into(), host.pids.into()],
            }
            .bound()?,
        ),
        max_disk_mb: within(
            "max_disk_mb",
            options.max_disk_mb.unwrap_or(10_240),
            MIN_DISK_MB,
            u64::MAX / MIB,
        )?,
        output_bytes: Pair {
            names: ["default_output_bytes", "max_output_bytes"],
            given: [options.default_output_bytes, output_max],
            usual: MIB,
            range: [0, 1024 * MIB],
        }
        .bound()?,
    })
}

fn millicores(option: &'static str, cores: f64) -> Result<u64, ConfigError> {
    if cores.is_finite() && (0.0..1e6).contains(&cores) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        return Ok((cores * 1000.0).round() as u64);
    }
    Err(ConfigError::Value { option, reason: format!("{cores} is no number of cores") })
}

/// The same in the unit that was given.
fn in_cores(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Value { option, reason } => {
            ConfigError::Value { option, reason: format!("in thousandths of a core, {reason}") }
        }
        other => other,
    }
}

fn default_data_dir(surroundings: &Surroundings) -> Result<PathBuf, ConfigError> {
    if surroundings.root {
        return Ok(PathBuf::from("/var/lib/faas"));
    }
    // The XDG base directory specification: a relative path is not valid and is to be ignored.
    let xdg = surroundings.variable("XDG_DATA_HOME").map(Path::new).filter(|path| path.is_absolute());
    let home = surroundings.variable("HOME").map(|home| Path::new(home).join(".local/share"));
    xdg.map(Path::to_owned).or(home).map(|base| base.join("faas")).ok_or_else(|| ConfigError::Value {
        option: "data_dir",
        reason: "it must be given: neither XDG_DATA_HOME nor HOME is set".to_owned(),
    })
}

fn log_filter(surroundings: &Surroundings) -> Result<String, ConfigError> {
    let bad = |reason: String| ConfigError::Environment { name: "RUST_LOG".to_owned(), reason };
    let Some(filter) = surroundings.variable("RUST_LOG") else { return Ok("info".to_owned()) };
    let filter = filter.to_str().ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
    EnvFilter::try_new(filter).map_err(|error| bad(error.to_string()))?;
    Ok(filter.to_owned())
}

/// The first paragraph of clap's text and its tip, without the usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let first = first.join(" ");
    let first = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    match text.lines().find_map(|line| line.trim().strip_prefix("tip: ")) {
        Some(tip) => format!("{first}; {tip}"),
        None => first,
    }
}

#[cfg(test)]
mod tests;
