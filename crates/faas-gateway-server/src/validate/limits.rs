//! Limits: each within what is configured and what the host has. Nothing is cut down in silence.

use std::time::Duration;

use faas_executor::sandbox::Limits;

use super::Findings;
use crate::config::{Bound, LimitRules, MIN_CPU_MILLICORES, MIN_DISK_MB, MIN_MEMORY_MB, MIN_PIDS};

/// What a request asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) timeout_ms: Option<u64>,
    pub(super) memory_mb: Option<u64>,
    pub(super) cpu_cores: Option<f64>,
    pub(super) pids_limit: Option<u64>,
    pub(super) disk_mb: Option<u64>,
    pub(super) max_output_bytes: Option<u64>,
}

/// What it gets.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) timeout: Duration,
    pub(super) sandbox: Limits,
    pub(super) max_output_bytes: u64,
}

pub(super) fn limits(asked: &Asked, rules: &LimitRules, findings: &mut Findings) -> Granted {
    let pids = Bound { default: rules.pids.default.into(), max: rules.pids.max.into() };
    let disk = Bound { default: rules.max_disk_mb, max: rules.max_disk_mb };
    let timeout_ms = whole("/timeout_ms", asked.timeout_ms, 1, rules.timeout_ms, findings);
    let memory_mb = whole("/memory_mb", asked.memory_mb, MIN_MEMORY_MB, rules.memory_mb, findings);
    let pids = whole("/pids_limit", asked.pids_limit, MIN_PIDS.into(), pids, findings);
    let output = whole("/max_output_bytes", asked.max_output_bytes, 0, rules.output_bytes, findings);
    let disk_mb = asked.disk_mb.map(|mb| whole("/disk_mb", Some(mb), MIN_DISK_MB, disk, findings));
    Granted {
        timeout: Duration::from_millis(timeout_ms),
        sandbox: Limits {
            memory_bytes: memory_mb.saturating_mul(1 << 20),
            cpu_millicores: millicores(asked.cpu_cores, rules.cpu_millicores, findings),
            pids: u32::try_from(pids).unwrap_or(u32::MAX),
            disk_bytes: disk_mb.map(|mb| mb.saturating_mul(1 << 20)),
        },
        max_output_bytes: output,
    }
}

pub(super) fn whole(
    pointer: &str,
    asked: Option<u64>,
    least: u64,
    bound: Bound<u64>,
    findings: &mut Findings,
) -> u64 {
    match asked {
        None => bound.default,
        Some(value) if value < least => {
            findings.add(pointer, format!("is {value}; it must be at least {least}"));
            bound.default
        }
        Some(value) if value > bound.max => {
            findings.add(pointer, format!("is {value}; at most {} is allowed here", bound.max));
            bound.default
        }
        Some(value) => value,
    }
}

fn millicores(asked: Option<f64>, bound: Bound<u32>, findings: &mut Findings) -> u32 {
    const POINTER: &str = "/cpu_cores";
    let in_cores = |millicores: u32| f64::from(millicores) / 1000.0;
    match asked {
        None => bound.default,
        // The first also when it is no number at all.
        Some(cores) if !cores.is_finite() || cores < in_cores(MIN_CPU_MILLICORES) => {
            findings
                .add(POINTER, format!("is {cores}; it must be at least {}", in_cores(MIN_CPU_MILLICORES)));
            bound.default
        }
        Some(cores) if cores > in_cores(bound.max) => {
            findings.add(POINTER, format!("is {cores}; at most {} is allowed here", in_cores(bound.max)));
            bound.default
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 32 bits, as checked above"
        )]
        Some(cores) => (cores * 1000.0).round() as u32,
    }
}
