//! Dumps of one file per shard: how they are called, and the manifest that names those of one moment.
//!
//! ```text
//! shardd parts 1
//! dump-1764298000000-0.rdb
//! dump-1764298000000-1.rdb
//! end
//! ```
//! Files of a new dump have names of their own, so nothing of the last one is touched before the manifest takes its name;
//! what no manifest names is then removed. Each part is a whole dump of its own, which redis loads, too.
//! Next: `save.rs` writes, `load.rs` reads.

/// What a manifest begins with, and what it ends with.
const FIRST: &str = "shardd parts 1";
const LAST: &str = "end";
/// Longest manifest that is read.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// The name of a dump's manifest.
pub(crate) fn name(dump: &str) -> String {
    format!("{dump}.parts")
}

/// The name of one shard's part of the dump of a moment.
pub(crate) fn part(dump: &str, unix_ms: u64, shard: u16) -> String {
    let (stem, end) = split(dump);
    format!("{stem}-{unix_ms}-{shard}{end}")
}

/// Whether a file is called as parts of this dump are.
pub(crate) fn is_part(dump: &str, file: &str) -> bool {
    let (stem, end) = split(dump);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    file.strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(end)?.strip_prefix('-')?.split_once('-'))
        .is_some_and(|(time, shard)| is_number(time) && is_number(shard))
}

fn split(dump: &str) -> (&str, &str) {
    match dump.strip_suffix(".rdb") {
        Some(stem) => (stem, ".rdb"),
        None => (dump, ""),
    }
}

/// A manifest.
pub(crate) fn write(parts: &[String]) -> String {
    let mut text = format!("{FIRST}\n");
    for part in parts {
        text.push_str(part);
        text.push('\n');
    }
    text + LAST + "\n"
}

/// What a manifest of this dump names.
///
/// # Errors
/// It is none, or not whole.
pub(crate) fn read(dump: &str, text: &str) -> Result<Vec<String>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST) {
        return Err("line 1: not a list of a dump's parts".into());
    }
    let mut parts = Vec::new();
    for (line, number) in lines.zip(2..) {
        if line == LAST {
            return Ok(parts);
        }
        if !is_part(dump, line) {
            return Err(format!("line {number}: not a part of this dump"));
        }
        parts.push(line.to_owned());
    }
    Err(format!("line {}: the file ends too early", parts.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_parts_and_nothing_else() {
        for dump in ["dump.rdb", "dump"] {
            let parts: Vec<_> = (0..3).map(|shard| part(dump, 1_764_298_000_000, shard)).collect();
            assert!(parts.iter().all(|part| is_part(dump, part)));
            let text = write(&parts);
            assert_eq!(read(dump, &text).as_ref(), Ok(&parts));
            let torn = text.strip_suffix("end\n").unwrap_or_default();
            assert_eq!(read(dump, torn).unwrap_err(), "line 5: the file ends too early");
        }
        assert_eq!(part("dump.rdb", 7, 1), "dump-7-1.rdb");
        for other in ["dump.rdb", "dump-7.rdb", "dump-7-.rdb", "dump-7-1.rdb.gz", "../dump-7-1.rdb"]
        {
            assert!(!is_part("dump.rdb", other), "{other}");
            let text = write(&[other.to_owned()]);
            assert_eq!(read("dump.rdb", &text).unwrap_err(), "line 2: not a part of this dump");
        }
        assert!(read("dump.rdb", "REDIS0010").is_err());
    }
}
