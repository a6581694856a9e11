//! Builds this crate's own program a second time, statically, and hands it to `lib.rs`: it runs in sandboxes whose
//! libraries it must not depend on.
//!
//! As for the guest agent, by a cargo of its own with a target directory of its own: `crt-static` for a whole workspace
//! breaks its procedural macros, and the outer cargo holds the lock of the usual directory.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set for the inner build, which needs no program to hand on.
const INNER: &str = "FAAS_ATTACKER_INNER_BUILD";

/// Small: the program travels in the body of most requests of the suite.
const PROFILE: [&str; 6] = [
    r#"profile.release.opt-level="s""#,
    r#"profile.release.lto="fat""#,
    "profile.release.codegen-units=1",
    r#"profile.release.panic="abort""#,
    r#"profile.release.strip="symbols""#,
    "profile.release.debug=false",
];

/// What the outer cargo or its caller sets for its own build, beside `CARGO_*`.
const NOT_FOR_THE_PROGRAM: [&str; 12] = [
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
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-env-changed={INNER}");
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let copy = out_dir.join("faas-attacker");
    match env::var_os(INNER) {
        Some(_) => std::fs::write(&copy, ""),
        None => std::fs::copy(build(&out_dir)?, &copy).map(drop),
    }
    .map_err(|error| format!("{}: {error}", copy.display()))?;
    println!("cargo::rustc-env=FAAS_ATTACKER_PROGRAM={}", copy.display());
    Ok(())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}

fn build(out_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = variable("TARGET")?.into_string().map_err(|_| "TARGET is not text")?;
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let target_dir = out_dir.parent().unwrap_or(out_dir).join("static-target");
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let is_cargos = name.to_string_lossy().starts_with("CARGO") && name != "CARGO_HOME";
        if is_cargos || NOT_FOR_THE_PROGRAM.iter().any(|other| name == *other) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .args([
            "build",
            "--release",
            "--quiet",
            "--locked",
            "--offline",
            "--bin",
            "faas-attacker",
            "--target",
            &target,
        ])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .env(INNER, "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static");
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo for the attacker: {error}"))?;
    if !status.success() {
        return Err(format!("cargo could not build the attacker: {status}").into());
    }
    Ok(target_dir.join(&target).join("release/faas-attacker"))
}
