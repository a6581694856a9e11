//! The arguments of `faas-gateway-server images`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Options;

/// Manages the images of a data directory: lists, pulls, imports and removes them.
///
/// Works whether or not a server runs on the directory; one that runs sees the change at once. Use the user that the
/// server runs as. The options are the server's own, and so are their variables (`FAAS_DATA_DIR`) and the file.
///
/// What was done goes to standard output, progress and errors to standard error. Exit codes: 0 done, 64 bad arguments or
/// configuration, 1 it could not be done (the message says why), 130 or 143 ended by a signal; nothing half-made stays.
#[derive(Debug, Parser)]
#[command(
    name = "faas-gateway-server images",
    bin_name = "faas-gateway-server images",
    max_term_width = 100,
    arg_required_else_help = false
)]
struct Arguments {
    #[command(subcommand)]
    command: ImagesCommand,
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    output: Output,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ImagesCommand {
    /// Lists the images, the latest first. The image `host` is not among them: it is the machine itself.
    List,
    /// Fetches an image from its registry, whether or not it is here already.
    Pull {
        /// `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`; without a host it is one of Docker Hub's, without a tag `latest`.
        name: String,
    },
    /// Takes in the images of an archive: an OCI layout (a directory or a tar) or what `docker save` writes, as it is or
    /// compressed with gzip or zstd.
    Import {
        /// The archive; `-` is standard input.
        path: PathBuf,
        /// The name for its image, in place of those that the archive has.
        #[arg(long)]
        name: Option<String>,
    },
    /// Removes a name, and the image with it when that was its last one; or an image with all its names, by its id.
    Remove {
        /// The name or the id.
        name: String,
    },
}

/// How it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Output {
    /// Print JSON, as `/api/v1/images` answers.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing of the progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The server's options that are about images.
#[derive(Debug, Args)]
struct StoreOptions {
    /// The data directory of the server.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// The server's configuration file.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Docker's own file with credentials for registries.
    #[arg(long, value_name = "FILE", global = true)]
    registry_auth_file: Option<PathBuf>,
    /// Registries, `HOST` or `HOST:PORT`, that are spoken to over plain HTTP; several are separated by commas.
    #[arg(long, value_name = "REGISTRIES", value_delimiter = ',', global = true)]
    insecure_registries: Option<Vec<String>>,
    /// How long a pull may take as a whole, in milliseconds.
    #[arg(long, value_name = "MS", global = true)]
    pull_timeout_ms: Option<u64>,
    /// The most disk that images take, in MiB.
    #[arg(long, value_name = "MIB", global = true)]
    max_images_mb: Option<u64>,
}

/// The word that the arguments of this begin with.
pub(super) const WORD: &str = "images";

/// Reads the arguments, the program's name and the word `images` left out.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(ImagesCommand, Output, Options), clap::Error> {
    let name = std::iter::once(OsString::from("faas-gateway-server images"));
    let Arguments { command, store, output } = Arguments::try_parse_from(name.chain(arguments))?;
    let options = Options {
        data_dir: store.data_dir,
        config: store.config,
        registry_auth_file: store.registry_auth_file,
        insecure_registries: store.insecure_registries,
        pull_timeout_ms: store.pull_timeout_ms,
        max_images_mb: store.max_images_mb,
        ..Options::default()
    };
    Ok((command, output, options))
}
