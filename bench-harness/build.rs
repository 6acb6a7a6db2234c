//! Notes with which compiler and how `bench` is built, for the fingerprint in its reports.
//!
//! Why a script: only cargo knows the compiler and the profile, and only while it builds. Invariant: nothing of the machine
//! that builds goes in but these. Next: `src/fingerprint`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output();
    let version = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=BENCH_RUSTC={}", version.unwrap_or_default());
    let said = |name: &str| {
        std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    println!("cargo::rustc-env=BENCH_PROFILE={}, opt-level {}", said("PROFILE"), said("OPT_LEVEL"));
    println!("cargo::rustc-env=BENCH_TARGET={}", said("TARGET"));
    let features = std::env::vars().filter_map(|(name, _)| {
        name.strip_prefix("CARGO_FEATURE_").map(|name| name.to_lowercase().replace('_', "-"))
    });
    let features: Vec<String> = features.collect();
    println!("cargo::rustc-env=BENCH_FEATURES={}", features.join(" "));
}
