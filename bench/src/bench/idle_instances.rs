//! Bench `idle_instances`: what the server holds, and computes, for each instance that nobody uses.

use std::time::Duration;

use serde_json::json;

use super::instance::Instance;
use super::{cold, marks, scratch};
use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::leftover::{self, Baseline};
use crate::proc;
use crate::report::Report;

/// How many there are.
const COUNT: usize = 200;

/// How many are made and deleted before: more than there are slots ready.
const FIRST: usize = 32;

/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("idle_instances");
    let scratch = scratch()?;
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    cold::warm_up(&gateway)?;
    // What the first ones cost alone, and each slot when it is first used.
    for instance in (0..FIRST).map(|_| create(&gateway)).collect::<Result<Vec<_>, _>>()? {
        instance.delete(&gateway)?;
    }
    let baseline = Baseline::take(&gateway)?;
    let pss_before = proc::pss_kib(gateway.pid())?;
    let cpu_idle = cpu_in(&gateway, WATCHED)?;
    let instances = (0..COUNT).map(|_| create(&gateway)).collect::<Result<Vec<_>, _>>()?;
    let pss_after = proc::pss_kib(gateway.pid())?;
    let cpu_full = cpu_in(&gateway, WATCHED)?;
    let grown = pss_after.saturating_sub(pss_before) as f64;
    report.figure("server, none: PSS", pss_before as f64, "KiB", true);
    report.figure("server, 200 idle instances: PSS", pss_after as f64, "KiB", true);
    report.figure("server, PSS for each instance", grown / COUNT as f64, "KiB", true);
    let share = |cpu: Duration| cpu.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    report.figure("server, none: CPU", share(cpu_idle), "% of a core", true);
    report.figure("server, 200 idle instances: CPU", share(cpu_full), "% of a core", true);
    for instance in instances {
        instance.delete(&gateway)?;
    }
    report.leftover.extend(baseline.compare(&gateway)?);
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

fn create(gateway: &Gateway) -> Result<Instance, BenchError> {
    Instance::create(gateway, &json!({"runtime": "native", "image": "host", "memory_mb": 64}))
}

/// CPU time that the server takes in a time.
fn cpu_in(gateway: &Gateway, time: Duration) -> Result<Duration, BenchError> {
    let before = proc::cpu_time(gateway.pid())?;
    crate::schedule::sleep(time);
    Ok(proc::cpu_time(gateway.pid())?.saturating_sub(before))
}
