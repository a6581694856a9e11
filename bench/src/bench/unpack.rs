//! Bench `unpack`: an image from an archive to a root directory, beside `skopeo copy` and `umoci unpack`.

use std::path::{Path, PathBuf};

use super::cold::warm_up;
use super::{marks, scratch};
use crate::RunArgs;
use crate::disk::Disk;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::helper::Order;
use crate::http::Connection;
use crate::image::{self, Image, TAG};
use crate::import::{Import, root_in};
use crate::leftover::{self, Baseline};
use crate::peer::umoci::{self, Unpack};
use crate::report::{Layer, Report, Table};
use crate::schedule::{Variant, Work, measure};
use crate::tree::Tree;

/// Layers of the image that has many.
pub(super) const LAYERS: usize = 40;

const OURS: &str = "faas images import";
const PEER: &str = "skopeo copy, umoci unpack";

/// An image in the form in which everybody gets it.
struct Source {
    title: &'static str,
    id: String,
    tree: Tree,
    /// A layout's directory or a saved tar file.
    path: PathBuf,
    /// As a tar file, for HTTP.
    archive: PathBuf,
    /// In skopeo's words.
    location: String,
}

impl Source {
    /// An OCI layout with gzip layers below `dir`: skopeo copies the layers as they are.
    fn layout(title: &'static str, image: &Image, dir: &Path) -> Result<Self, BenchError> {
        let (path, archive) = (dir.join("layout"), dir.join("layout.tar"));
        image.write_layout(&path)?;
        image::pack(&path, &archive)?;
        let location = format!("oci:{}:{TAG}", path.display());
        Self::new(title, image, dir, path, archive, location)
    }

    /// What `docker save` writes: skopeo compresses the layers, without which umoci does not take them.
    fn saved(title: &'static str, image: &Image, dir: &Path) -> Result<Self, BenchError> {
        let (parts, archive) = (dir.join("saved"), dir.join("saved.tar"));
        image.write_saved(&parts)?;
        image::pack(&parts, &archive)?;
        let location = format!("docker-archive:{}", archive.display());
        Self::new(title, image, dir, archive.clone(), archive, location)
    }

    fn new(
        title: &'static str,
        image: &Image,
        dir: &Path,
        path: PathBuf,
        archive: PathBuf,
        location: String,
    ) -> Result<Self, BenchError> {
        let reference = dir.join("tree");
        image.write_tree(&reference)?;
        let tree = Tree::of(&reference).map_err(BenchError::io(&reference))?;
        Ok(Self { title, id: image.id.to_string(), tree, path, archive, location })
    }

    fn import(&self, gateway: &Gateway) -> Import {
        let (archive, id) = (self.archive.clone(), self.id.clone());
        Import { archive, id, data_dir: gateway.data_dir.clone(), tree: self.tree.clone() }
    }

    fn variants(&self, args: &RunArgs, gateway: &Gateway, dir: &Path) -> Vec<Variant> {
        let n = (args.n / 20).max(1);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let order = |steps, root| {
            let (dir, tree) = (dir.to_owned(), self.tree.clone());
            Work::Helper(vec![Order::Unpack { dir, steps, root, tree }])
        };
        let (server, path, at) = (args.server.display(), self.path.display(), dir.display());
        let import =
            [&*server.to_string(), "images", "import", &path.to_string(), "--data-dir", &at.to_string()];
        let mut variants = vec![
            (OURS, Layer::Ours, order(vec![words(&import)], root_in(dir, &self.id))),
            ("faas POST /api/v1/images", Layer::Ours, Work::Import(self.import(gateway))),
        ];
        if umoci::is_here().is_ok() {
            let sync = words(&["sync", "-f", &at.to_string()]);
            let (steps, root) = umoci::steps(&self.location, dir, Unpack::Bundle);
            variants.push((PEER, Layer::Peer, order(steps.clone(), root.clone())));
            let synced = [steps, vec![sync]].concat();
            variants.push(("skopeo, umoci, sync -f", Layer::Peer, order(synced, root)));
            let (steps, root) = umoci::steps(&self.location, dir, Unpack::Raw);
            variants.push(("skopeo, umoci raw unpack", Layer::Peer, order(steps, root)));
        }
        let variant = |(name, layer, work): (&str, _, _)| Variant { name: name.to_owned(), layer, work, n };
        let is_wanted =
            |variant: &Variant| !args.without.iter().any(|word| variant.name.contains(word.as_str()));
        variants.into_iter().map(variant).filter(is_wanted).collect()
    }
}

/// All images in all forms, below `dir`.
fn sources(dir: &Path) -> Result<Vec<Source>, BenchError> {
    let at = |name: &str| -> Result<PathBuf, BenchError> {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(BenchError::io(&path))?;
        Ok(path)
    };
    let busybox = image::recipe("alpine")?;
    let python = Image::of(vec![image::recipe("python")?])?;
    let many = Image::of(image::layers_over(busybox.clone(), LAYERS, &at("many")?)?)?;
    Ok(vec![
        Source::layout("busybox, OCI layout", &Image::of(vec![busybox])?, &at("busybox")?)?,
        Source::layout("40 layers, OCI layout", &many, &at("many")?)?,
        Source::layout("python, OCI layout", &python, &at("python-layout")?)?,
        Source::saved("python, docker save", &python, &at("python-saved")?)?,
    ])
}

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("unpack");
    if let Err(reason) = umoci::is_here() {
        report.absent.insert("skopeo and umoci".to_owned(), reason);
    }
    let scratch = scratch()?;
    let sources = sources(&scratch.path().join("images"))?;
    let disk = Disk::make(scratch.path())?;
    let gateway = Gateway::start(&args.server, &disk.path)?;
    let marks = marks(&scratch, &gateway);
    warm_up(&gateway)?;
    // An index stays in the store.
    if let Some(source) = sources.first() {
        source.import(&gateway).once(&mut Connection::open(gateway.address)?)?;
    }
    let baseline = Baseline::take(&gateway)?;
    for source in &sources {
        report.figure(&format!("{}: entries", source.title), source.tree.entries as f64, "", true);
        let mib = source.tree.bytes as f64 / f64::from(1 << 20);
        report.figure(&format!("{}: files", source.title), mib, "MiB", true);
        let variants = source.variants(args, &gateway, &disk.path.join("unpacked"));
        let table = measure(&variants, Some(gateway.address), 1, None)?;
        report.tables.push(Table { title: source.title.to_owned(), ..table });
    }
    let ratios: Vec<_> = report.tables.iter().filter_map(ratio).collect();
    for (name, ratio) in ratios {
        report.figure(&name, ratio, "times", false);
    }
    report.leftover.extend(baseline.compare(&gateway)?);
    gateway.stop()?;
    drop(disk);
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

/// How many times as long as ours the peer takes, by the medians.
fn ratio(table: &Table) -> Option<(String, f64)> {
    Some((
        format!("{}: p50 of skopeo and umoci by ours", table.title),
        table.p50_us(PEER)? / table.p50_us(OURS)?,
    ))
}
