//! Rules of the house that no lint knows: size of files, headers, unfinished code, paths of a machine, and
//! documents that name only what exists.
//!
//! Where next: CONTRIBUTING.md states the rules for people.

#![forbid(unsafe_code)]

mod tree;

use tree::{Source, code_only, lines_with, root, rust, sources};

/// Where a file is to be split at the latest.
const MAX_LINES: usize = 800;

/// Macros that say "not done yet", or were left over from a search.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// How paths of somebody's machine begin. Put together here so that this file does not hold them.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("/var/fol", "ders/"),
];

const TEXT: &[&str] = &[
    ".rs", ".md", ".toml", ".py", ".sh", ".js", ".c", ".h", ".txt", ".yml", "Makefile", "run",
    "need",
];

#[test]
fn files_are_short_enough_to_read() {
    for source in sources(&[".rs", ".py", ".sh", ".js", ".c", "Makefile"]) {
        let lines = source.text.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines; split it by what it does", source.path);
    }
}

#[test]
fn files_say_what_they_are() {
    for source in rust() {
        assert!(source.text.starts_with("//!"), "{}: no `//!` header", source.path);
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for source in rust() {
        let code = code_only(&source.text);
        for word in UNFINISHED {
            let name = word.trim_end_matches('!');
            let lines = lines_with(&code, name);
            let call =
                |line: &&usize| code.lines().nth(**line - 1).is_some_and(|l| l.contains(word));
            assert!(lines.iter().find(call).is_none(), "{}: {word} at {lines:?}", source.path);
        }
    }
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    for source in sources(TEXT) {
        for (at, line) in source.text.lines().enumerate() {
            let found = machine_path(line);
            assert!(found.is_none(), "{}:{}: {found:?}", source.path, at + 1);
        }
    }
}

/// A machine's path in this line. One that goes on from a name, as in a folder of that name, is not
/// absolute.
fn machine_path(line: &str) -> Option<&str> {
    MACHINE_PATHS.iter().copied().find(|path| {
        line.match_indices(path).any(|(at, _)| {
            let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at));
            !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"._-})".contains(byte))
        })
    })
}

#[test]
fn the_engine_and_the_services_keep_anyhow_to_main() {
    for source in rust() {
        let library = source.path.starts_with("engine/") || source.path.starts_with("services/");
        let main = source.path.ends_with("/main.rs");
        if !library || main || source.path.contains("/tests/") {
            continue;
        }
        let lines = lines_with(&code_only(&source.text), "anyhow");
        assert!(lines.is_empty(), "{}:{lines:?}: anyhow outside main.rs", source.path);
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in sources(&[".md"]) {
        for target in links(&document.text) {
            let folder = std::path::Path::new(&document.path).parent().expect("a folder");
            let path = root().join(folder).join(target);
            assert!(path.exists(), "{}: the link to {target} leads nowhere", document.path);
        }
    }
}

/// Targets of `[text](target)` within the repository, without their `#part`.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target))
        .collect()
}

/// The documents that lead a reader through the code.
const GUIDES: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "BENCHMARKS.md"];

#[test]
fn guides_name_files_and_functions_that_exist() {
    let files = rust();
    let mut named = 0;
    for document in sources(&[".md"]) {
        if !GUIDES.contains(&document.path.as_str())
            && !document.path.starts_with("docs/decisions/")
        {
            continue;
        }
        let mut file = None;
        for (at, line) in document.text.lines().enumerate() {
            let place = format!("{}:{}", document.path, at + 1);
            named += check_line(line, &place, &files, &mut file);
        }
    }
    assert!(named > 20, "only {named} names found in the guides: the check has gone blind");
}

/// Checks the names between backquotes of one line: a path from the top must exist, and a `name()`
/// after a Rust file must be a function of that file, which is the last one named in the paragraph.
/// How many there were.
fn check_line<'a>(
    line: &str,
    place: &str,
    files: &'a [Source],
    file: &mut Option<&'a Source>,
) -> usize {
    const TOP: &[&str] = &["engine/", "services/", "bench-harness/", "docs/", ".ci/", ".config/"];
    if line.trim().is_empty() {
        *file = None;
    }
    let mut named = 0;
    for name in line.split('`').skip(1).step_by(2) {
        if TOP.iter().any(|top| name.starts_with(top)) && !name.contains([' ', '<', '*', '{']) {
            assert!(root().join(name).exists(), "{place}: {name} does not exist");
            *file = files.iter().find(|source| source.path == name);
            named += 1;
        } else if let (Some(source), Some(function)) = (*file, name.strip_suffix("()")) {
            let code = code_only(&source.text);
            let defines = |line: usize| {
                let line = code.lines().nth(line - 1).unwrap_or_default();
                line.contains(&format!("fn {function}"))
            };
            let defined = lines_with(&code, function).into_iter().any(defines);
            assert!(defined, "{place}: {} has no function {function}", source.path);
            named += 1;
        }
    }
    named
}

#[test]
fn the_checks_find_what_they_look_for() {
    let wrong = concat!("see /ho", "me/me/notes");
    assert!(machine_path(wrong).is_some());
    let right = concat!("see src/wo", "rk/notes and https://example.org/x");
    assert!(machine_path(right).is_none());
    assert_eq!(links("[a](b.md#c) [d](https://e.f/) [g](#h)"), ["b.md"]);
    let files = rust();
    let check = |line: &str| check_line(line, "here", &files, &mut None);
    assert_eq!(check("`services/node/tests/house_rules.rs` `check_line()`"), 2);
    assert!(std::panic::catch_unwind(|| check("`services/node/gone.rs`")).is_err());
    let gone = "`services/node/tests/house_rules.rs` `gone()`";
    assert!(std::panic::catch_unwind(|| check(gone)).is_err());
}
