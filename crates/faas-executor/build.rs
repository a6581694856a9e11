//! Builds the guest agent and hands it to `agent_binary.rs`: a static program, whatever this crate is built as.
//!
//! Cargo is run a second time, since crt-static for a whole workspace breaks its proc-macros: for the agent alone, with
//! a target directory of its own (the outer cargo holds the lock of the usual one) and without what the outer cargo put
//! into the environment. `FAAS_GUEST_AGENT=PATH` takes a program that was built elsewhere instead.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// Small rather than fast: every sandbox keeps it in memory, and its work is system calls.
const PROFILE: [&str; 6] = [
    r#"profile.release.opt-level="z""#,
    r#"profile.release.lto="fat""#,
    "profile.release.codegen-units=1",
    r#"profile.release.panic="abort""#,
    r#"profile.release.strip="symbols""#,
    "profile.release.debug=false",
];

/// What the outer cargo or its caller sets for its own build, beside `CARGO_*`.
const NOT_FOR_THE_AGENT: [&str; 12] = [
    "DEBUG",
    "HOST",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
    "RUSTC_LINKER",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FAAS_GUEST_AGENT");
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let agent = match env::var_os("FAAS_GUEST_AGENT") {
        Some(given) => {
            println!("cargo::rerun-if-changed={}", Path::new(&given).display());
            PathBuf::from(given)
        }
        None => build(&out_dir)?,
    };
    let bytes = fs::read(&agent).map_err(|error| format!("{}: {error}", agent.display()))?;
    let copy = out_dir.join("faas-guest-agent");
    fs::write(&copy, &bytes).map_err(|error| format!("{}: {error}", copy.display()))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=FAAS_GUEST_AGENT_PATH={}", copy.display());
    println!("cargo::rustc-env=FAAS_GUEST_AGENT_DIGEST={digest}");
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}

fn build(out_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = variable("TARGET")?.into_string().map_err(|_| "TARGET is not text")?;
    if !target.contains("-linux-") {
        return Err(format!(
            "the guest agent is a Linux program and cannot be built for {target}: build it on Linux and set \
             FAAS_GUEST_AGENT to its path"
        )
        .into());
    }
    let crates = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let manifest = crates.join("faas-guest-agent/Cargo.toml");
    for part in ["faas-guest-agent", "faas-guest-protocol", "faas-tar"] {
        for file in ["src", "Cargo.toml"] {
            println!("cargo::rerun-if-changed={}", crates.join(part).join(file).display());
        }
    }
    let target_dir = out_dir.parent().unwrap_or(out_dir).join("guest-agent-target");
    // One separator between flags, as cargo has it. Paths of the building machine stay out of the program, so that its
    // digest does not depend on them.
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), "-Crelocation-model=static".to_owned()];
    if let Some(workspace) = crates.parent() {
        flags.push(format!("--remap-path-prefix={}=.", workspace.display()));
    }
    if let Some(home) = env::var_os("CARGO_HOME") {
        flags.push(format!("--remap-path-prefix={}=cargo", Path::new(&home).display()));
    }
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let is_cargos = name.to_string_lossy().starts_with("CARGO") && name != "CARGO_HOME";
        if is_cargos || NOT_FOR_THE_AGENT.iter().any(|other| name == *other) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args(["build", "--release", "--quiet", "--locked", "--offline", "--target", &target])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo for the guest agent: {error}"))?;
    if !status.success() {
        return Err(format!("cargo could not build the guest agent: {status}").into());
    }
    Ok(target_dir.join(&target).join("release/faas-guest-agent"))
}
