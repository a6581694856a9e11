//! What a run found, as a table for people and as a JSON file for `compare`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::engine::Engine;
use crate::error::BenchError;
use crate::stats::Summary;

/// What a line of the table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layer {
    /// The kernel alone.
    Floor,
    /// This project.
    Ours,
    /// Somebody else's.
    Peer,
}

/// The times of one variant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    pub(crate) per_second: f64,
    /// What the server itself says of its part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_create_p50_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_exec_p50_us: Option<f64>,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// All variants at one concurrency, with or without a pause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    /// What it is of, where a bench has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) title: String,
    pub(crate) concurrency: usize,
    pub(crate) pause_ms: u64,
    pub(crate) series: Vec<Series>,
}

/// A number that is no time of many runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// Whether more of it is worse.
    pub(crate) less_is_better: bool,
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) bench: String,
    pub(crate) date: String,
    pub(crate) host: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) tables: Vec<Table>,
    #[serde(default)]
    pub(crate) figures: Vec<Figure>,
    /// Peers that are not on this machine, with the reason.
    #[serde(default)]
    pub(crate) absent: BTreeMap<String, String>,
    /// What the run left behind; must be empty.
    #[serde(default)]
    pub(crate) leftover: Vec<String>,
    /// Bounds that were exceeded; must be empty.
    #[serde(default)]
    pub(crate) exceeded: Vec<String>,
}

impl Report {
    /// An empty one, with the machine's facts as of now.
    pub(crate) fn new(bench: &str) -> Self {
        let date = OffsetDateTime::now_utc();
        Self {
            bench: bench.to_owned(),
            date: date.format(&Rfc3339).unwrap_or_default(),
            host: crate::host::facts(),
            tables: Vec::new(),
            figures: Vec::new(),
            absent: BTreeMap::new(),
            leftover: Vec::new(),
            exceeded: Vec::new(),
        }
    }

    /// The facts of the engine that the run was on.
    pub(crate) fn engine(&mut self, engine: &Engine) -> Result<(), BenchError> {
        let version =
            engine.docker(&["version", "--format", "{{.Server.Version}}, API {{.Server.APIVersion}}"])?;
        let runs = "{{.Driver}}, cgroup v{{.CgroupVersion}}, {{.DefaultRuntime}}";
        let runs = engine.docker(&["info", "--format", runs])?;
        self.host.insert("engine".to_owned(), format!("{version}, {runs}"));
        Ok(())
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, less_is_better: bool) {
        self.figures.push(Figure { name: name.to_owned(), value, unit: unit.to_owned(), less_is_better });
    }

    /// Prints the tables and writes the file. Returns whether nothing was left over and no bound exceeded.
    pub(crate) fn finish(&self, results: &Path) -> Result<bool, BenchError> {
        self.print();
        let path = self.save(results)?;
        println!("written: {}", path.display());
        Ok(self.leftover.is_empty() && self.exceeded.is_empty())
    }

    fn print(&self) {
        println!("\n== {} ({}) ==", self.bench, self.date);
        for (name, value) in &self.host {
            println!("{name}: {value}");
        }
        for table in &self.tables {
            table.print();
        }
        if !self.figures.is_empty() {
            println!("\n{:<52} {:>12}  unit", "figure", "value");
        }
        for figure in &self.figures {
            println!("{:<52} {:>12.2}  {}", figure.name, figure.value, figure.unit);
        }
        println!();
        for (name, reason) in &self.absent {
            println!("{name}: not here: {reason}");
        }
        for line in &self.exceeded {
            println!("EXCEEDED: {line}");
        }
        if self.leftover.is_empty() {
            println!(
                "left over: nothing (processes, mounts, cgroups, loop devices, descriptors, directories)"
            );
        }
        for line in &self.leftover {
            println!("LEFT OVER: {line}");
        }
    }

    fn save(&self, results: &Path) -> Result<PathBuf, BenchError> {
        std::fs::create_dir_all(results).map_err(BenchError::io(results))?;
        let stamp = OffsetDateTime::now_utc()
            .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
            .unwrap_or_default();
        let path = results.join(format!("{}-{stamp}.json", self.bench));
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| BenchError::Json { path: path.clone(), source })?;
        std::fs::write(&path, text + "\n").map_err(BenchError::io(&path))?;
        Ok(path)
    }
}

impl Table {
    /// The median of a variant.
    pub(crate) fn p50_us(&self, name: &str) -> Option<f64> {
        self.series.iter().find(|series| series.name == name).map(|series| series.summary.p50_us)
    }

    fn print(&self) {
        let pause = if self.pause_ms == 0 {
            "back-to-back".to_owned()
        } else {
            format!("{} ms between", self.pause_ms)
        };
        let title = if self.title.is_empty() { String::new() } else { format!("{}; ", self.title) };
        println!("\n{title}{} at once, {pause}; milliseconds; 'of ours' = its p50 / ours", self.concurrency);
        println!(
            "{:<28} {:<5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}",
            "variant", "layer", "n", "p50", "p90", "p99", "min", "1/s", "of ours"
        );
        let ours =
            self.series.iter().find(|series| series.layer == Layer::Ours).map(|series| series.summary.p50_us);
        for series in &self.series {
            let summary = &series.summary;
            let ms = |us: f64| format!("{:.3}", us / 1000.0);
            let layer = match series.layer {
                Layer::Floor => "L0",
                Layer::Ours => "ours",
                Layer::Peer => "peer",
            };
            println!(
                "{:<28} {layer:<5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8.1} {:>9}",
                series.name,
                summary.n,
                ms(summary.p50_us),
                ms(summary.p90_us),
                ms(summary.p99_us),
                ms(summary.min_us),
                series.per_second,
                ours.map_or_else(|| "-".to_owned(), |ours| format!("{:.2}", summary.p50_us / ours)),
            );
            if let (Some(create), Some(exec)) = (series.server_create_p50_us, series.server_exec_p50_us) {
                println!("{:<34} server's own: create p50 {}, exec p50 {}", "", ms(create), ms(exec));
            }
        }
    }
}
