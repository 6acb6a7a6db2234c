//! Which crate may depend on which: the layers of the repository, read from `cargo metadata`.
//!
//! Invariants checked: protocol and logic crates know no runtime; the engine knows no service; no
//! service knows another; only the engine depends on `io-uring`; the runtimes we compare with stay in the
//! bench harness. Where next: ARCHITECTURE.md says why, [`ALLOWED`] is the list.

#![forbid(unsafe_code)]

mod tree;

use std::process::Command;

use serde_json::Value;

/// Services: libraries that `node` and `sim` join.
const SERVICES: &[&str] = &["broker", "cache"];

/// What each crate may use of ours, beside itself. A crate that is not listed fails the test: its
/// place is to be decided, not to be found out.
const ALLOWED: &[(&str, &[&str])] = &[
    ("view", &[]),
    ("wire", &["view"]),
    ("logic", &["view"]),
    ("engine", &["view"]),
    ("testing", &[]),
    ("broker", &["engine", "view", "wire", "logic", "testing"]),
    ("cache", &["engine", "view", "wire", "logic", "testing"]),
    ("node", &["engine", "view", "wire", "logic", "broker", "cache", "tuning"]),
    ("sim", &["engine", "view", "wire", "logic", "broker", "cache"]),
    // Programs in the kernel and what steers them: nothing of the engine.
    ("bpf", &[]),
    // Host tuning, for any host: `node` uses its library at its start.
    ("tuning", &[]),
    // Its load generator runs on the engine's own driver: a generator on a slower loop would be the
    // limit of every comparison. It hosts the services' sessions on other runtimes, hence their libraries.
    // Statistics, and what host it is on, are those of host tuning, which measures too.
    ("bench-harness", &["engine", "view", "wire", "logic", "cache", "testing", "tuning"]),
    // Apart from it, so that counting instructions does not build other runtimes.
    ("instructions", &["engine", "view", "wire", "cache"]),
];

/// A crate of ours, and the name it gives a dependency when that is another than its own.
type User = (&'static str, Option<&'static str>);

/// Crates of others with one place, and who may depend on each.
const FENCED: &[(&str, &[User])] = &[
    // The second is the release monoio is built on; its ring builder is how monoio is given the flags
    // the engine uses, so that the comparison is fair.
    ("io-uring", &[("engine", None), ("bench-harness", Some("io-uring-of-monoio"))]),
    ("monoio", &[("bench-harness", None)]),
    ("glommio", &[("bench-harness", None)]),
    ("tokio", &[("bench-harness", None)]),
    // Behind the engine's own trait.
    ("rustls", &[("engine", None)]),
    ("libbpf-rs", &[("bpf", None)]),
    ("libbpf-sys", &[("bpf", None)]),
    ("libbpf-cargo", &[("bpf", None)]),
    // File systems that are faults.
    ("fuser", &[("bpf", None)]),
    ("netlink-bindings", &[("tuning", None), ("bench-harness", None)]),
    ("netlink-socket2", &[("tuning", None), ("bench-harness", None)]),
];

/// Packages of their own, with their own lock file: live clients and fuzzers, which would make every build longer.
const APART: &[&str] =
    &["services/broker/tests/clients/rdkafka/Cargo.toml", "services/cache/fuzz/Cargo.toml"];

/// Names that would hide a crate of the language or of everyone.
const BANNED_NAMES: &[&str] = &["core", "std", "alloc", "log", "test"];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages").clone();
    assert!(packages.len() >= ALLOWED.len(), "{} packages", packages.len());
    packages
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What each crate depends on, of any kind: (crate, dependency, name it is given).
fn edges(packages: &[Value]) -> Vec<(&str, &str, Option<&str>)> {
    packages
        .iter()
        .flat_map(|package| {
            let list = package["dependencies"].as_array().expect("a list of dependencies");
            list.iter().map(|dependency| {
                (text(package, "name"), text(dependency, "name"), dependency["rename"].as_str())
            })
        })
        .collect()
}

#[test]
fn crates_depend_only_on_the_layers_below() {
    let packages = packages();
    let ours: Vec<&str> = packages.iter().map(|package| text(package, "name")).collect();
    for name in &ours {
        assert!(
            ALLOWED.iter().any(|(known, _)| known == name),
            "crate {name} has no row in ALLOWED: decide what it may depend on"
        );
    }
    for (from, to, _) in edges(&packages) {
        if !ours.contains(&to) {
            continue;
        }
        let (_, allowed) = ALLOWED.iter().find(|(name, _)| *name == from).expect("checked above");
        assert!(allowed.contains(&to), "{from} depends on {to}; it may use only {allowed:?}");
    }
}

#[test]
fn the_list_itself_keeps_the_layers() {
    for (from, allowed) in ALLOWED {
        let joins = ["node", "sim", "bench-harness", "instructions"].contains(from);
        for to in *allowed {
            assert!(joins || !SERVICES.contains(to), "{from} may not use the service {to}");
        }
        if ["view", "wire", "logic"].contains(from) {
            assert!(!allowed.contains(&"engine"), "{from} must not know the engine");
        }
    }
    for service in SERVICES {
        assert!(ALLOWED.iter().any(|(name, _)| name == service), "no row for {service}");
    }
}

#[test]
fn fenced_crates_stay_in_their_place() {
    let packages = packages();
    for (from, to, rename) in edges(&packages) {
        let Some((_, places)) = FENCED.iter().find(|(name, _)| *name == to) else {
            continue;
        };
        assert!(places.contains(&(from, rename)), "{from} depends on {to}; only {places:?} may");
    }
    for (name, places) in FENCED {
        for (from, rename) in *places {
            assert!(
                edges(&packages).contains(&(from, name, *rename)),
                "{from} no longer depends on {name}: remove the row"
            );
        }
    }
}

#[test]
fn names_hide_nothing() {
    for package in packages() {
        let names = package["targets"].as_array().expect("a list of targets").iter();
        for name in names.map(|target| text(target, "name")).chain([text(&package, "name")]) {
            assert!(!BANNED_NAMES.contains(&name), "a crate or target is named {name}");
        }
    }
}

#[test]
fn versions_are_chosen_in_one_place() {
    for manifest in tree::sources(&["Cargo.toml"]) {
        if manifest.path == "Cargo.toml" {
            continue;
        }
        if APART.contains(&&*manifest.path) {
            let own = manifest.text.contains("\n[workspace]\n");
            assert!(own, "{}: it is to be no member of the workspace", manifest.path);
            continue;
        }
        assert!(
            manifest.text.contains("[lints]\nworkspace = true"),
            "{}: the workspace's lints are not taken over",
            manifest.path
        );
        let mut in_dependencies = false;
        for line in manifest.text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.trim_start().starts_with('#') {
                assert!(
                    line.contains("workspace = true"),
                    "{}: `{line}` does not take its version from the workspace",
                    manifest.path
                );
            }
        }
    }
}
