//! Two result files side by side: ratios, and what became worse by more than a tenth.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::error::BenchError;
use crate::report::{Report, Table};

/// A ratio beyond this, in the worse direction, is marked.
const REGRESSION: f64 = 1.10;

#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The earlier result.
    before: PathBuf,
    /// The later one.
    after: PathBuf,
    /// Exit with 1 when something is worse by more than 10 %.
    #[arg(long)]
    fail: bool,
}

/// One number in both files.
struct Line {
    name: String,
    unit: String,
    before: f64,
    after: f64,
    less_is_better: bool,
}

impl Line {
    fn ratio(&self) -> f64 {
        if self.before == self.after { 1.0 } else { self.after / self.before }
    }

    fn worse(&self) -> bool {
        if self.less_is_better { self.ratio() > REGRESSION } else { self.ratio() < 1.0 / REGRESSION }
    }
}

/// Prints the comparison.
pub(crate) fn run(args: &CompareArgs) -> ExitCode {
    let (before, after) = match (load(&args.before), load(&args.after)) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("faas-bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    for (name, value) in &before.host {
        let other = after.host.get(name).map_or("-", String::as_str);
        if value != other && name != "load_before" {
            println!("differs: {name}: {value} | {other}");
        }
    }
    println!("{:<52} {:>12} {:>12} {:>7}", "figure", "before", "after", "ratio");
    let lines = lines(&before, &after);
    let mut worse = 0;
    for line in &lines {
        let mark = if line.worse() { "  WORSE" } else { "" };
        worse += usize::from(line.worse());
        println!(
            "{:<52} {:>12.2} {:>12.2} {:>7.2} {}{mark}",
            line.name,
            line.before,
            line.after,
            line.ratio(),
            line.unit
        );
    }
    println!("{} figures in both, {worse} worse by more than 10 %", lines.len());
    if lines.is_empty() || (worse > 0 && args.fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn load(path: &Path) -> Result<Report, BenchError> {
    let text = std::fs::read_to_string(path).map_err(BenchError::io(path))?;
    serde_json::from_str(&text).map_err(|source| BenchError::Json { path: path.to_owned(), source })
}

fn lines(before: &Report, after: &Report) -> Vec<Line> {
    let key = |table: &Table| (table.title.clone(), table.concurrency, table.pause_ms);
    let mut lines = Vec::new();
    for table in &before.tables {
        let other = after.tables.iter().find(|t| key(t) == key(table));
        for series in &table.series {
            let Some(now) = other.and_then(|table| table.series.iter().find(|s| s.name == series.name))
            else {
                continue;
            };
            let title = if table.title.is_empty() { String::new() } else { format!("{}: ", table.title) };
            let at = format!("{title}{} at {}, pause {}", series.name, table.concurrency, table.pause_ms);
            for (what, before, after) in [
                ("p50", series.summary.p50_us, now.summary.p50_us),
                ("p99", series.summary.p99_us, now.summary.p99_us),
            ] {
                let (name, unit) = (format!("{at}: {what}"), "us".to_owned());
                lines.push(Line { name, unit, before, after, less_is_better: true });
            }
        }
    }
    for figure in &before.figures {
        if let Some(now) = after.figures.iter().find(|f| f.name == figure.name) {
            lines.push(Line {
                name: figure.name.clone(),
                unit: figure.unit.clone(),
                before: figure.value,
                after: now.value,
                less_is_better: figure.less_is_better,
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Line, lines};
    use crate::report::{Layer, Report, Series, Table};
    use crate::stats::summarise;

    fn line(before: f64, after: f64, less_is_better: bool) -> Line {
        Line { name: String::new(), unit: String::new(), before, after, less_is_better }
    }

    #[test]
    fn worse_looks_in_the_right_direction() {
        assert!(line(100.0, 111.0, true).worse());
        assert!(!line(100.0, 109.0, true).worse());
        assert!(!line(100.0, 200.0, false).worse());
        assert!(line(200.0, 100.0, false).worse());
        assert!(!line(0.0, 0.0, true).worse());
    }

    #[test]
    fn tables_of_one_title_are_compared() {
        let table = |title: &str, ns| {
            let series = Series {
                name: "ours".to_owned(),
                layer: Layer::Ours,
                per_second: 0.0,
                server_create_p50_us: None,
                server_exec_p50_us: None,
                summary: summarise(&[ns]),
            };
            Table { title: title.to_owned(), concurrency: 1, pause_ms: 0, series: vec![series] }
        };
        let report = |tables| Report { tables, ..Report::new("x") };
        let before = report(vec![table("small", 1000), table("large", 2000), table("gone", 3000)]);
        let after = report(vec![table("large", 5000), table("small", 4000)]);
        let lines = lines(&before, &after);
        let found: Vec<_> = lines.iter().map(|line| (line.name.as_str(), line.before, line.after)).collect();
        assert_eq!(found[0], ("small: ours at 1, pause 0: p50", 1.0, 4.0));
        assert_eq!(found[2], ("large: ours at 1, pause 0: p50", 2.0, 5.0));
        assert_eq!(found.len(), 4);
    }
}
