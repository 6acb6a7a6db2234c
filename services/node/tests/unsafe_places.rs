//! Where the word `unsafe` may stand, and what must stand above it.
//!
//! Four fenced places of the engine, and what `bpf` cannot ask of the kernel otherwise: every other crate forbids it at its root. clippy checks the
//! comments of blocks too (`undocumented_unsafe_blocks`); this test also holds where a lint is lifted.
//! Where next: ARCHITECTURE.md, "What is not there".

#![forbid(unsafe_code)]

mod tree;

use tree::{code_only, lines_with, root, rust, sources};

/// The fenced places, as beginnings of paths.
const PLACES: &[&str] = &[
    "engine/src/driver/",
    "engine/src/buf/",
    "engine/src/exec/waker.rs",
    "engine/src/shard/mesh.rs",
    "engine/src/shard/mesh/",
    // Calls that libbpf's bindings and rustix offer in no other way.
    "bpf/src/link.rs",
    "bpf/src/doctor.rs",
    "bpf/src/clock/ptrace.rs",
    "bpf/src/clock/code.rs",
    "bpf/src/delay_line/tap.rs",
    "bpf/src/metrics/cost.rs",
    // System calls of the tests' own workers.
    "bpf/tests/netprobe/ring.rs",
    "bpf/tests/oracle/workloads/worker/",
];

/// Most lines between a SAFETY comment and the block it is about: the start of a long statement.
const STATEMENT_LINES: usize = 12;

#[test]
fn unsafe_stands_only_in_the_fenced_places() {
    let mut seen = 0;
    for source in rust() {
        let lines = lines_with(&code_only(&source.text), "unsafe");
        if PLACES.iter().any(|place| source.path.starts_with(place)) {
            seen += lines.len();
        } else {
            assert!(lines.is_empty(), "{}:{}: unsafe outside its places", source.path, lines[0]);
        }
    }
    assert!(seen > 10, "only {seen} uses found: the scan has gone blind");
}

#[test]
fn every_block_says_why_it_is_sound() {
    for source in rust() {
        let code = code_only(&source.text);
        let code: Vec<&str> = code.lines().collect();
        let text: Vec<&str> = source.text.lines().collect();
        for line in lines_with(&code.join("\n"), "unsafe") {
            if !is_block(&code, line - 1) {
                continue;
            }
            assert!(
                is_justified(&text, &code, line - 1),
                "{}:{line}: no SAFETY comment above this unsafe block",
                source.path
            );
        }
    }
}

/// Whether the word at this line opens a block or an implementation; functions and traits state
/// their conditions in their documentation instead.
fn is_block(code: &[&str], at: usize) -> bool {
    let after = code[at].split("unsafe").nth(1).unwrap_or_default().trim_start();
    let after = if after.is_empty() {
        code.get(at + 1).map_or("", |line| line.trim_start())
    } else {
        after
    };
    after.starts_with('{') || after.starts_with("impl")
}

/// Whether a SAFETY comment stands on this line or above its statement.
fn is_justified(text: &[&str], code: &[&str], at: usize) -> bool {
    if text[at].contains("SAFETY:") {
        return true;
    }
    let mut in_comment = false;
    for above in (at.saturating_sub(STATEMENT_LINES)..at).rev() {
        let line = text[above].trim();
        if line.starts_with("//") {
            in_comment = true;
            if line.contains("SAFETY:") {
                return true;
            }
            continue;
        }
        let ended = code[above].trim_end().ends_with([';', '}']);
        if in_comment || line.is_empty() || ended {
            return false;
        }
    }
    false
}

#[test]
fn every_other_crate_forbids_it() {
    let root = root();
    for manifest in sources(&["Cargo.toml"]) {
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        // Those that have fenced places.
        if folder.is_empty() || folder == "engine/" || folder == "bpf/" {
            continue;
        }
        let roots = ["src/lib.rs", "src/main.rs"].map(|file| format!("{folder}{file}"));
        let mut found = 0;
        for path in roots {
            let Ok(text) = std::fs::read_to_string(root.join(&path)) else {
                continue;
            };
            found += 1;
            let code = code_only(&text);
            let forbids = code.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
            assert!(forbids, "{path}: no #![forbid(unsafe_code)]");
        }
        assert!(found > 0, "{folder}: neither src/lib.rs nor src/main.rs");
    }
}

#[test]
fn the_scan_sees_code_and_nothing_else() {
    let source = r##"
// unsafe in a comment
/* unsafe /* unsafe */ unsafe */
let a = "unsafe \" unsafe";
let b = r#"unsafe " unsafe"#;
let c = ('"', 'u', '\'', b'\\'); let d: &'static str = x;
#![forbid(unsafe_code)]
let e = not_unsafe + unsafely;
let für = unsafe { f() };
"##;
    let code = code_only(source);
    assert_eq!(code.lines().count(), source.lines().count());
    assert_eq!(lines_with(&code, "unsafe"), [9]);
    assert_eq!(lines_with(&code, "str"), [6]);
}

#[test]
fn a_justification_is_found_above_a_statement_and_not_beyond_it() {
    let justified = ["// SAFETY: because.", "let x =", "    f(unsafe { g() });"];
    assert!(is_justified(&justified, &justified, 2));
    let other = ["// SAFETY: because.", "let y = 1;", "let x = unsafe { g() };"];
    assert!(!is_justified(&other, &other, 2));
    let blank = ["// SAFETY: because.", "", "unsafe { g() };"];
    assert!(!is_justified(&blank, &blank, 2));
    assert!(is_block(&["unsafe impl Send for X {}"], 0));
    assert!(is_block(&["let x = unsafe {"], 0));
    assert!(!is_block(&["unsafe fn f() {"], 0));
}
