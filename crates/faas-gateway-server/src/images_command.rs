//! `faas-gateway-server images`: the image store from the command line.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use faas_executor::images::{
    Digest, ImageError, ImageErrorKind, ImageLease, ImageStore, ImportSource, Phase, Progress,
};
use faas_executor::{Engine, StartError};
use faas_types::ImageInfo;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ImagesCommand, Output};
use crate::image_info::info;
use crate::run::EXIT_USAGE;

/// How often a terminal is told of progress.
const REDRAW: Duration = Duration::from_millis(100);

/// The path that means standard input.
const STDIN: &str = "-";

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("{0}")]
    Open(#[from] StartError),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
}

impl CommandError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Image(error) if error.kind() == ImageErrorKind::Invalid => ExitCode::from(EXIT_USAGE),
            Self::Image(_) | Self::Open(_) | Self::Io { .. } => ExitCode::FAILURE,
        }
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> CommandError {
    move |source| CommandError::Io { what, source }
}

/// Does it.
#[must_use]
pub fn run(config: Config, command: ImagesCommand, output: Output) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(io("async runtime"));
    let ended = runtime.and_then(|runtime| {
        let ended = runtime.block_on(run_until_signal(config, command, output));
        // Standard input may never come to an end, and a thread reads it.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faas-gateway-server images: {error}");
            error.exit_code()
        }
    }
}

async fn run_until_signal(
    config: Config,
    command: ImagesCommand,
    output: Output,
) -> Result<ExitCode, CommandError> {
    let catch = |kind| signal(kind).map_err(io("signal handlers"));
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let store = Engine::open_images(&config.data_dir, config.images).await?;
    let text = tokio::select! {
        text = done(&store, command, output) => text?,
        _ = terminate.recv() => return Ok(given_up(&store, SignalKind::terminate()).await),
        _ = interrupt.recv() => return Ok(given_up(&store, SignalKind::interrupt()).await),
    };
    store.settle().await;
    // A reader that is gone has seen what it wanted.
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(io("standard output")(error)),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// What was begun is removed.
async fn given_up(store: &ImageStore, signal: SignalKind) -> ExitCode {
    store.settle().await;
    // Numbers of signals that end a process are small.
    ExitCode::from(128 + u8::try_from(signal.as_raw_value()).unwrap_or_default())
}

/// Does it; the text for standard output.
async fn done(store: &ImageStore, command: ImagesCommand, output: Output) -> Result<String, CommandError> {
    match command {
        ImagesCommand::List => {
            let images = all(store).await?;
            Ok(if output.json { json(&images)? } else { table(&images) })
        }
        ImagesCommand::Pull { name } => {
            let lease = store.pull(&name, tell(output)).await?;
            added(store, &[lease], output).await
        }
        ImagesCommand::Import { path, name } => {
            let source = if path.as_os_str() == STDIN {
                ImportSource::Stream(Box::new(tokio::io::stdin()))
            } else {
                ImportSource::Path(path)
            };
            let leases = store.import(source, name.as_deref(), tell(output)).await?;
            added(store, &leases, output).await
        }
        ImagesCommand::Remove { name } => {
            store.remove(&name).await?;
            Ok(String::new())
        }
    }
}

/// All images, the latest first.
async fn all(store: &ImageStore) -> Result<Vec<ImageInfo>, CommandError> {
    let mut images = store.list().await?;
    images.sort_by_key(|image| (std::cmp::Reverse(image.added_unix_ms), image.id));
    Ok(images.into_iter().map(info).collect())
}

async fn added(store: &ImageStore, leases: &[ImageLease], output: Output) -> Result<String, CommandError> {
    let is_new = |image: &ImageInfo| leases.iter().any(|lease| lease.id().to_string() == image.id);
    let images = all(store).await?.into_iter().filter(is_new);
    // Leased by this very command.
    let images: Vec<_> = images.map(|image| ImageInfo { in_use: false, ..image }).collect();
    if output.json {
        return json(&images);
    }
    Ok(images.iter().fold(String::new(), |mut text, image| {
        let names = if image.names.is_empty() { "(no name)".to_owned() } else { image.names.join(" ") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {names}", image.id);
        text
    }))
}

fn json(images: &[ImageInfo]) -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(images).map_err(|error| io("JSON")(error.into()))?;
    Ok(text + "\n")
}

/// For people: one line for each name.
fn table(images: &[ImageInfo]) -> String {
    let mut rows = vec![["NAME", "ID", "SIZE", "ADDED", "IN USE"].map(str::to_owned)];
    for image in images {
        let id = image.id.trim_start_matches("sha256:");
        let in_use = if image.in_use { "yes" } else { "no" };
        let row = |name: &str| {
            let size = Bytes(image.size_bytes).to_string();
            [
                name.to_owned(),
                id[..12.min(id.len())].to_owned(),
                size,
                image.added_at.clone(),
                in_use.to_owned(),
            ]
        };
        match image.names.as_slice() {
            [] => rows.push(row("(no name)")),
            names => rows.extend(names.iter().map(|name| row(name))),
        }
    }
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default());
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut tenths = u128::from(self.0) * 10;
        let mut unit = "B";
        for larger in units {
            if tenths < 10_240 {
                break;
            }
            (tenths, unit) = (tenths.div_ceil(1024), larger);
        }
        if unit == "B" {
            return write!(f, "{} B", self.0);
        }
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Tells of the steps on standard error: a line that is written again and again on a terminal, and one for each layer
/// and phase elsewhere.
fn tell(output: Output) -> impl Fn(Progress) + Send + Sync + 'static {
    let is_terminal = std::io::stderr().is_terminal();
    let told: Mutex<Told> = Mutex::default();
    move |step| {
        if output.quiet {
            return;
        }
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.steps.insert((step.phase.as_str(), step.layer));
        let is_end = is_new && !matches!(step.phase, Phase::Receiving | Phase::Unpacking);
        let is_time = told.at.is_none_or(|at| at.elapsed() >= REDRAW);
        if !(if is_terminal { is_end || is_time } else { is_new }) {
            return;
        }
        told.at = Some(Instant::now());
        let line = line(&step);
        let text = match (is_terminal, is_end) {
            (false, _) => format!("{line}\n"),
            (true, false) => format!("\r\x1b[K{line}"),
            (true, true) => format!("\r\x1b[K{line}\n"),
        };
        // Nobody is left to be told when standard error is gone.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// What has been said, and when the last of it.
#[derive(Default)]
struct Told {
    steps: HashSet<(&'static str, Option<Digest>)>,
    at: Option<Instant>,
}

fn line(step: &Progress) -> String {
    let mut line = step.phase.as_str().to_owned();
    if let Some(layer) = &step.layer {
        let layer = layer.to_string();
        line = format!("{} {line}", layer.trim_start_matches("sha256:").get(..12).unwrap_or(&layer));
    }
    if step.done_bytes > 0 || step.total_bytes.is_some() {
        line += &format!(" {}", Bytes(step.done_bytes));
    }
    if let Some(total) = step.total_bytes {
        line += &format!(" of {}", Bytes(total));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Bytes, table};

    #[test]
    fn sizes_are_said_in_a_unit_that_fits() {
        for (bytes, said) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (20 << 30, "20.0 GiB")]
        {
            assert_eq!(Bytes(bytes).to_string(), said);
        }
    }

    #[test]
    fn a_table_without_images_is_its_head() {
        assert_eq!(table(&[]), "NAME  ID  SIZE  ADDED  IN USE\n");
    }
}
