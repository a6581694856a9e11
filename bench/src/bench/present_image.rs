//! Bench `present_image`: what an image of the store adds to an execution, whatever the number of its layers.

use std::path::Path;

use serde_json::json;

use super::cold::warm_up;
use super::unpack::LAYERS;
use super::{marks, measure_all, scratch};
use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::image::{self, Image};
use crate::leftover::{self, Baseline};
use crate::report::{Layer, Report, Table};
use crate::schedule::{EXECUTE, Variant, Work};

/// In `host`, in an image of one layer and in one of many the same static program; and `true` of `host`.
const HOST: &str = "host, busybox true";
const ONE: &str = "image of 1 layer";
const MANY: &str = "image of 40 layers";
const HOST_TRUE: &str = "host, true";

fn variant(name: &str, n: usize, image: &str, command: &[&str]) -> Variant {
    let body = json!({"command": command, "runtime": "native", "image": image, "memory_mb": 512,
        "pids_limit": 256, "cpu_cores": 1.0});
    let work = Work::Execute { path: EXECUTE.to_owned(), body: body.to_string(), stdout: String::new() };
    Variant { name: name.to_owned(), layer: Layer::Ours, work, n }
}

/// Has an image in the server's store, under a name.
fn add(gateway: &Gateway, image: &Image, name: &str, dir: &Path) -> Result<(), BenchError> {
    let (layout, archive) = (dir.join("layout"), dir.join("layout.tar"));
    image.write_layout(&layout)?;
    image::pack(&layout, &archive)?;
    let mut connection = Connection::open(gateway.address)?;
    let answer = connection.post_file(&format!("/api/v1/images?name={name}"), &archive)?;
    if answer.status != 201 {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(BenchError::Answer(format!("status {}: {text}", answer.status)));
    }
    Ok(())
}

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("present_image");
    let scratch = scratch()?;
    let dir = scratch.path().join("images");
    let at = |name: &str| dir.join(name);
    for name in ["many", "one"] {
        std::fs::create_dir_all(at(name)).map_err(BenchError::io(&dir))?;
    }
    let many = Image::of(image::layers_over(image::recipe("alpine")?, LAYERS, &at("many"))?)?;
    // The same files in one layer.
    many.write_tree(&at("tree"))?;
    image::pack(&at("tree"), &at("tree.tar"))?;
    let one = Image::of(vec![at("tree.tar")])?;
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    add(&gateway, &one, "bench:one", &at("one"))?;
    add(&gateway, &many, "bench:many", &at("many"))?;
    warm_up(&gateway)?;
    let command = ["busybox", "true"];
    let variants = [
        variant(HOST, args.n, "host", &command),
        variant(ONE, args.n, "bench:one", &command),
        variant(MANY, args.n, "bench:many", &command),
        variant(HOST_TRUE, args.n, "host", &["true"]),
    ];
    let baseline = Baseline::take(&gateway)?;
    measure_all(&mut report, args, &variants, Some(gateway.address))?;
    let figures: Vec<_> = report.tables.iter().flat_map(differences).collect();
    for (name, ms) in figures {
        report.figure(&name, ms, "ms", true);
    }
    report.leftover.extend(baseline.compare(&gateway)?);
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

/// How much longer the medians of a table are, in milliseconds.
fn differences(table: &Table) -> Vec<(String, f64)> {
    let at = format!("{} at once, {} ms between", table.concurrency, table.pause_ms);
    let pairs = [
        ("1 layer over host", ONE, HOST),
        ("40 layers over host", MANY, HOST),
        ("40 layers over 1", MANY, ONE),
    ];
    let difference = |(what, image, other): (&str, &str, &str)| {
        let ms = (table.p50_us(image)? - table.p50_us(other)?) / 1000.0;
        Some((format!("{what}, p50, {at}"), ms))
    };
    pairs.into_iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::{HOST, MANY, ONE, differences};
    use crate::report::{Layer, Series, Table};
    use crate::stats::summarise;

    #[test]
    fn differences_are_of_the_medians_and_in_milliseconds() {
        let series = |name: &str, ns: u64| Series {
            name: name.to_owned(),
            layer: Layer::Ours,
            per_second: 0.0,
            server_create_p50_us: None,
            server_exec_p50_us: None,
            summary: summarise(&[ns]),
        };
        let series = vec![series(HOST, 4_000_000), series(ONE, 4_500_000), series(MANY, 4_250_000)];
        let table = Table { title: String::new(), concurrency: 1, pause_ms: 50, series };
        let found: Vec<f64> = differences(&table).into_iter().map(|(_, ms)| ms).collect();
        assert_eq!(found, [0.5, 0.25, -0.25]);
    }
}
