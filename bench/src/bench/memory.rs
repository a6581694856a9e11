//! Bench `memory`: what an idle sandbox holds beyond its command: `init`, `keeper` and `agent`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{cold, marks, scratch};
use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::leftover;
use crate::proc::{self, Process};
use crate::report::Report;

/// How many sandboxes are idle at once. Shared pages count for less in each the more there are.
const COUNTS: [usize; 2] = [1, 8];

/// How long the command sleeps: long enough to look, short enough to wait for.
const COMMAND: &str = r#"{"command":["sleep","3"],"timeout_ms":60000}"#;

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("memory");
    let scratch = scratch()?;
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    cold::warm_up(&gateway)?;
    report.figure("server, idle: PSS", proc::pss_kib(gateway.pid())? as f64, "KiB", true);
    for count in COUNTS {
        std::thread::scope(|scope| -> Result<(), BenchError> {
            let answers: Vec<_> = (0..count).map(|_| scope.spawn(|| sleeping(&gateway))).collect();
            let sandboxes = wait_for(&gateway, count)?;
            measure(&mut report, &sandboxes, count)?;
            for answer in answers {
                answer.join().map_err(|_| BenchError::Answer("a worker died".to_owned()))??;
            }
            Ok(())
        })?;
    }
    let rest: Vec<Process> = proc::descendants(gateway.pid())?;
    let pss = rest.iter().map(|process| proc::pss_kib(process.pid)).sum::<Result<u64, _>>()?;
    report.figure("launcher and its waiting slots, idle: processes", rest.len() as f64, "processes", true);
    report.figure("launcher and its waiting slots, idle: PSS", pss as f64, "KiB", true);
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

fn sleeping(gateway: &Gateway) -> Result<(), BenchError> {
    let mut connection = Connection::open(gateway.address)?;
    let answer = connection.send(&connection.request("POST", "/api/v1/execute", Some(COMMAND)))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status == 200 && text.contains(r#""exit_code":0"#) {
        Ok(())
    } else {
        Err(BenchError::Answer(format!("status {}: {text}", answer.status)))
    }
}

/// The processes of ours in each sandbox with a sleeping command, once there are `count` of them.
fn wait_for(gateway: &Gateway, count: usize) -> Result<Vec<Vec<Process>>, BenchError> {
    let begin = Instant::now();
    loop {
        let all = proc::descendants(gateway.pid())?;
        let sleeping: Vec<&Process> = all.iter().filter(|process| process.comm == "sleep").collect();
        if sleeping.len() == count {
            return sleeping.iter().map(|process| own_processes(&all, process)).collect();
        }
        if begin.elapsed() > Duration::from_secs(2) {
            return Err(BenchError::Answer(format!("{} of {count} commands are running", sleeping.len())));
        }
        crate::schedule::sleep(Duration::from_millis(5));
    }
}

/// All processes in the PID namespace of `command`, without it.
fn own_processes(all: &[Process], command: &Process) -> Result<Vec<Process>, BenchError> {
    let namespace = |pid: u32| {
        let path = format!("/proc/{pid}/ns/pid");
        std::fs::read_link(&path).map_err(BenchError::io(path))
    };
    let wanted = namespace(command.pid)?;
    let mut found = Vec::new();
    for process in all {
        if process.pid != command.pid && namespace(process.pid).is_ok_and(|other| other == wanted) {
            found.push(process.clone());
        }
    }
    Ok(found)
}

fn measure(report: &mut Report, sandboxes: &[Vec<Process>], count: usize) -> Result<(), BenchError> {
    let mut worst = 0;
    let mut names = BTreeSet::new();
    for processes in sandboxes {
        let mut sum = 0;
        for process in processes {
            sum += proc::pss_kib(process.pid)?;
            names.insert(process.comm.clone());
        }
        worst = worst.max(sum);
    }
    let processes = sandboxes.iter().map(Vec::len).max().unwrap_or(0);
    println!("{count} at once: {processes} processes of ours in a sandbox: {names:?}");
    report.figure(
        &format!("sandbox, {count} at once: processes of ours"),
        processes as f64,
        "processes",
        true,
    );
    report.figure(&format!("sandbox, {count} at once: PSS of them (largest)"), worst as f64, "KiB", true);
    Ok(())
}
