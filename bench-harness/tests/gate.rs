//! `bench gate` end to end: the same server runs, is saved and compared, unchanged and with mutants seeded into it.
//!
//! The server is the pathology server of this program; mutants sleep, copy memory or call the kernel before each reply. A second
//! one, which no mutant is in, is the control. Effects are many times the budgets, so that a machine that others use cannot hide or make
//! one: what smaller effects are found is proven in `gate::tests` on sessions of known truth.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");
/// A budget on a machine where others work: twice the CPU time. Rates are left out, since the load may limit a server that does nothing.
const BUDGET: [&str; 2] = ["--budget", "cpu_ns_per_op=100"];

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let name = format!("gate-{name}-{}", std::process::id());
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).expect("room");
        Self(dir)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        fs::write(&path, text).expect("room");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bench(args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        Command::new(BENCH).args(args).output().expect("bench runs");
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (status.code().unwrap_or(-1), text)
}

const SCENARIO: &str = "about = 'a server beside one that stays as it is'\nsides = ['control', 'subject']\npairs = 7\nseconds = 0.2\n\
    [load]\nprotocol = 'resp'\nkeys = 100\nvalue-len = 64\nconnections = 4\n";

/// Tries of a session on a machine where others work.
const TRIES: usize = 3;

/// A session with `mode` as what the subject does; its file.
fn session(dir: &Dir, name: &str, mode: &[&str], port: u16) -> String {
    let words = |mode: &[&str]| mode.iter().map(|word| format!("\"{word}\", ")).collect::<String>();
    // By its path it is a program of others, as far as the registry can tell.
    let peer = |name: &str, program: &str, mode: &[&str]| {
        format!(
            "[[peer]]\nname = \"{name}\"\nabout = \"a server for tests\"\nprotocols = [\"resp\"]\nprogram = {program}\n\
             args = [\"pathology\", {}\"--addr\", \"127.0.0.1:{{port}}\"]\nready = \"tcp\"\n",
            words(mode)
        )
    };
    let control = peer("control", &format!("{{ path = \"{BENCH}\" }}"), &["prompt"]);
    let peers =
        dir.put(&format!("{name}-peers.toml"), &(control + &peer("subject", "\"own\"", mode)));
    let scenario = dir.put("scenario.toml", SCENARIO);
    let json = dir.file(&format!("{name}.json"));
    for attempt in 1..=TRIES {
        let port = (port + 50 * attempt as u16).to_string();
        let args = ["run", &scenario, "--json", &json, "--host-network", "--port", &port];
        let (code, text) = bench(&[&["--peers", &peers], &args[..]].concat());
        assert_eq!(code, 0, "{text}");
        // A trial without a single reply ends a side: that happens where others have the core.
        if !text.contains("did not run") {
            return json;
        }
        eprintln!("try {attempt} of {TRIES}: {text}");
    }
    panic!("{name}: a side failed in each of {TRIES} sessions");
}

/// Compares sessions of a server that does `mode` with `base` until it is decided: `wanted` at last, and nothing but "undecided" before.
fn decided(
    dir: &Dir,
    base: &str,
    name: &str,
    mode: &[&str],
    port: u16,
    wanted: i32,
    more: &[&str],
) -> (String, String) {
    for attempt in 1..=TRIES {
        let new = session(dir, name, mode, port + 300 * attempt as u16);
        let (code, text) = gate(base, &new, more);
        if code == wanted {
            return (new, text);
        }
        assert_eq!(code, 4, "{name}: {text}");
        eprintln!("{name}, try {attempt} of {TRIES}: {text}");
    }
    panic!("{name}: not decided in {TRIES} sessions");
}

fn gate(base: &str, new: &str, more: &[&str]) -> (i32, String) {
    bench(&[&["gate", base, new], more].concat())
}

fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect(path)).expect("JSON")
}

#[test]
fn seeded_mutants_are_caught_and_a_clean_run_passes() {
    let dir = Dir::new("mutants");
    let base = session(&dir, "base", &["prompt"], 27_000);
    let (clean, text) = decided(&dir, &base, "clean", &["prompt"], 27_000, 0, &BUDGET);
    assert!(text.contains("subject / control"), "the control is used: {text}");
    let found = dir.file("found.json");
    for (name, mode, figure) in [
        ("sleep", &["sleep", "--for", "10ms"][..], "p50_ns"),
        ("copy", &["copy", "--kib", "8192"][..], "cpu_ns_per_op"),
        ("syscalls", &["syscalls", "--count", "20000"][..], "cpu_ns_per_op"),
    ] {
        let budget = format!("{figure}=100");
        let more = ["--budget", &budget, "--json", &found];
        let (mutant, text) = decided(&dir, &base, name, mode, 27_500, 3, &more);
        let rows = json(&found)["rows"].clone();
        let caught = rows.as_array().expect("rows").iter().any(|row| {
            row["figure"] == figure && row["side"] == "subject" && row["verdict"] == "regression"
        });
        assert!(caught, "{name}: {text}");
        // The other way round it is an improvement.
        let (code, text) = gate(&mutant, &base, &["--budget", &budget]);
        assert_eq!(code, 0, "{name}: {text}");
    }
    refusals(&dir, &base, &clean);
}

/// What a real file is refused for.
fn refusals(dir: &Dir, base: &str, clean: &str) {
    let report = json(clean);
    let print = &report["machine"]["fingerprint"];
    assert!(print["end"]["unix_s"].as_u64() >= print["start"]["unix_s"].as_u64(), "{print}");
    assert!(print["software"]["peers"]["control"].is_string(), "{print}");
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut report = report.clone();
        change(&mut report);
        dir.put(name, &report.to_string())
    };
    let other = changed("other.json", &|report| {
        report["machine"]["fingerprint"]["identity"]["kernel"] = Value::from("2.6.32");
    });
    let (code, text) = gate(base, &other, &BUDGET);
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("the machines differ in kernel: ") && text.contains("2.6.32"), "{text}");
    assert!(!text.contains("subject / control"), "no ratio is given: {text}");
    let (code, text) = gate(base, &other, &[&BUDGET[..], &["--force"]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("subject / control") && text.contains("2.6.32"), "{text}");
    let older = changed("older.json", &|report| {
        report["machine"].as_object_mut().expect("an object").remove("fingerprint");
    });
    let (code, text) = gate(&older, clean, &BUDGET);
    assert_eq!((code, text.contains("BASE has no fingerprint")), (6, true), "{text}");
    let void = changed("void.json", &|report| report["void"] = Value::from(vec!["x"]));
    assert_eq!(gate(base, &void, &BUDGET).0, 4);
    let bound = changed("bound.json", &|report| {
        let samples = report["cells"][0]["sides"][1]["samples"].as_array_mut().expect("samples");
        for sample in samples {
            sample["trial"]["limit"] = Value::from("client");
        }
    });
    assert_eq!(gate(&bound, &bound, &["--budget", "rate=90"]).0, 5);
    let (code, text) = gate(&dir.put("files.json", "{\"schema\": \"bench-files/1\"}"), clean, &[]);
    assert_eq!((code, text.contains("bench-files/1")), (6, true), "{text}");
    let (code, text) = gate(base, "no-such-file", &[]);
    assert_eq!((code, text.contains("read no-such-file")), (1, true), "{text}");
}

#[test]
fn help_has_the_exit_codes() {
    for command in [&["--help"][..], &["gate", "--help"]] {
        let (code, text) = bench(command);
        assert_eq!(code, 0, "{text}");
        for (exit, about) in bench_harness::exit::TABLE {
            assert!(text.contains(&format!("{}  {about}", exit.code())), "{about} in {text}");
        }
    }
    assert_eq!(bench(&["gate", "one-file"]).0, 2);
    let (code, text) = bench(&["gate", "a", "b", "--budget", "rate"]);
    assert_eq!((code, text.contains("FIGURE=PERCENT")), (2, true), "{text}");
}
