//! Hosts as text: what `tune` looks at, to be looked at elsewhere.
//!
//! A host is a file with a line for each of its files: `path = value`, `path =ro= value` for one that is read-only by its mode,
//! `path/` for a directory. In a path or a value, `{0..3}` and `{a,b}` stand for several lines, in which all braces go forward
//! together; `include FILE` reads another file first; of two lines of one place the last counts; `\n`, `\t`, `\0`, `\\` and `\{`
//! are as one expects. Invariants: a host that is unpacked is checked as it was where it was recorded; what says who uses the host (its
//! environment, its processes, its mounts beyond those that matter) is not recorded. Next: `tree`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::check::{self, Options};
use crate::error::{During as _, Error, Result};
use crate::host::Host;
use crate::knob::Profile;
use crate::tree::{Seen, Tree};

/// Files may include each other so deep.
const DEPTH: u32 = 8;
/// One line stands for so many at most.
const LINES: usize = 8192;

/// The host as text.
#[must_use]
pub fn record(mut tree: Tree) -> String {
    tree.watch();
    let host = Host::read(&tree);
    for profile in Profile::ALL {
        let _ = check::check(&tree, &host, Options { profile: *profile, host_too: true });
    }
    let Seen { files, dirs, read_only } = tree.seen();
    let mut text = format!("# {}.\n", host.line());
    for dir in &dirs {
        text.push_str(&format!("{}/\n", escaped(dir)));
    }
    for (path, value) in &files {
        let Some(value) = kept(path, value) else { continue };
        let sign = if read_only.contains(path) { "=ro=" } else { "=" };
        text.push_str(&format!("{} {sign} {}\n", escaped(path), escaped(&value)));
    }
    text
}

/// The part of a file that is looked at; nothing when none of it is.
fn kept(path: &str, text: &str) -> Option<String> {
    let lines = |is_kept: &dyn Fn(&str) -> bool| {
        let some: Vec<&str> = text.lines().filter(|line| is_kept(line)).collect();
        some.join("\n")
    };
    let starts = |names: &'static [&'static str]| {
        move |line: &str| names.iter().any(|name| line.starts_with(name))
    };
    Some(match path {
        "/proc/cpuinfo" => {
            let first = text.split("\n\n").next().unwrap_or_default();
            let line = |line: &str| match line.strip_prefix("flags") {
                Some(flags) if flags.contains(" hypervisor") => {
                    Some("flags\t: hypervisor".to_owned())
                }
                Some(_) => None,
                None => ["vendor_id", "CPU implementer"]
                    .iter()
                    .any(|name| line.starts_with(name))
                    .then(|| line.to_owned()),
            };
            first.lines().filter_map(line).collect::<Vec<_>>().join("\n")
        }
        "/proc/meminfo" => lines(&starts(&["MemTotal:"])),
        "/proc/self/status" => lines(&starts(&["Cpus_allowed_list:"])),
        "/proc/self/limits" => {
            lines(&starts(&["Limit", "Max open", "Max locked", "Max processes"]))
        }
        "/proc/self/mountinfo" => lines(&|line| {
            let at = line.split(' ').nth(4).unwrap_or_default();
            ["/", "/proc", "/sys", "/dev"].contains(&at)
                || ["/proc/sys", "/proc/irq", "/sys/"].iter().any(|start| at.starts_with(start))
        }),
        "/proc/1/environ" => {
            let mut pairs = text.split('\0');
            pairs.find(|pair| pair.starts_with("container=")).unwrap_or_default().to_owned()
        }
        _ if path.ends_with("/comm") => {
            ["irqbalance", "kthreadd"].contains(&text).then(|| text.to_owned())?
        }
        _ => text.to_owned(),
    })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '{' => escaped.push_str("\\{"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\0' => escaped.push_str("\\0"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Makes the files that a text stands for, below a directory.
///
/// # Errors
/// A line is none, or a file cannot be made.
pub fn unpack(file: &Path, root: &Path) -> Result<()> {
    include(file, root, DEPTH)
}

fn include(file: &Path, root: &Path, depth: u32) -> Result<()> {
    let doing = || format!("read {}", file.display());
    if depth == 0 {
        return Err(Error::new(format!("{}: files that include each other", doing())));
    }
    let text = fs::read_to_string(file).during(doing)?;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", file.display(), number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("include ") {
            include(&file.with_file_name(name), root, depth - 1)?;
            continue;
        }
        for line in expand(line).during(place)? {
            put(root, &line).during(place)?;
        }
    }
    Ok(())
}

/// A line without braces, in which a character that stands for itself has a mark before it.
#[derive(Clone, Debug, Default)]
struct Plain(String);

fn put(root: &Path, line: &Plain) -> Result<()> {
    let line = &line.0;
    let split = line.split_once(" =ro= ").map(|pair| (pair, 0o444));
    let split = split.or_else(|| line.split_once(" = ").map(|pair| (pair, 0o644)));
    let ((path, value), mode) = match split {
        Some(split) => split,
        None if line.ends_with(" =") => ((line.trim_end_matches(" ="), ""), 0o644),
        None if line.ends_with('/') => {
            let dir = below(root, line)?;
            return fs::create_dir_all(&dir).during(|| format!("make {}", dir.display()));
        }
        None => return Err(Error::new(format!("{line:?} is neither `path = value` nor `path/`"))),
    };
    let path = below(root, path)?;
    let doing = || format!("write {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(root)).during(doing)?;
    if path.exists() {
        fs::remove_file(&path).during(doing)?;
    }
    fs::write(&path, format!("{}\n", unescaped(value))).during(doing)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).during(doing)
}

fn below(root: &Path, path: &str) -> Result<std::path::PathBuf> {
    let path = unescaped(path);
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::new(format!("{path:?}: a path from the top is wanted")));
    }
    Ok(root.join(path.trim_start_matches('/')))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// The lines that one with braces stands for.
fn expand(line: &str) -> Result<Vec<Plain>> {
    let mut lines = vec![Plain::default()];
    let mut rest = line;
    while let Some(open) = brace(rest) {
        let (before, after) = rest.split_at(open);
        let (inner, after) = after
            .get(1..)
            .and_then(|after| after.split_once('}'))
            .ok_or_else(|| Error::new(format!("{line:?}: a brace is not closed")))?;
        let items = items(inner)?;
        if lines.len() == 1 {
            lines = vec![lines.remove(0); items.len()];
        }
        if items.len() != lines.len() {
            return Err(Error::new(format!("{line:?}: braces of different lengths")));
        }
        for (line, item) in lines.iter_mut().zip(&items) {
            line.0.push_str(before);
            line.0.push_str(item);
        }
        rest = after;
    }
    lines.iter_mut().for_each(|line| line.0.push_str(rest));
    Ok(lines)
}

/// Where the first brace opens that does not stand for itself.
fn brace(text: &str) -> Option<usize> {
    let mut is_marked = false;
    text.char_indices().find_map(|(at, character)| {
        let opens = character == '{' && !is_marked;
        is_marked = character == '\\' && !is_marked;
        opens.then_some(at)
    })
}

fn items(inner: &str) -> Result<Vec<String>> {
    let Some((first, last)) = inner.split_once("..") else {
        return Ok(inner.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| text.parse::<usize>().during(|| format!("{{{inner}}}"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last || last - first >= LINES {
        return Err(Error::new(format!("{{{inner}}}: 1 to {LINES} lines are wanted")));
    }
    Ok((first..=last).map(|number| number.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Dir;

    fn expanded(line: &str) -> Vec<String> {
        expand(line).expect("a line").into_iter().map(|line| line.0).collect()
    }

    #[test]
    fn braces_go_forward_together() {
        assert_eq!(expanded("a{0..2}b{x,y,z} = 1"), ["a0bx = 1", "a1by = 1", "a2bz = 1"]);
        assert_eq!(expanded("plain"), ["plain"]);
        assert_eq!(expanded(r"a\{b"), [r"a\{b"]);
        assert_eq!(expanded("{0..8191}").len(), LINES);
        for wrong in ["{0..2}{a,b}", "{0..8192}", "{3..1}", "{0..x}", "{0"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_come_back_as_they_were() {
        for text in ["a\tb\nc\0", r"C:\{x}\n", "", "[a] b "] {
            assert_eq!(unescaped(&escaped(text)), text);
            assert_eq!(expanded(&escaped(text)), [escaped(text)]);
        }
    }

    #[test]
    fn what_leads_out_of_the_directory_is_refused() {
        let dir = Dir::new("unpack");
        for (line, why) in [
            ("/../x = 1", "from the top"),
            ("x = 1", "from the top"),
            ("/x", "neither"),
            ("include t", "include each other"),
        ] {
            dir.file("/t", line);
            let error = unpack(&dir.path().join("t"), &dir.path().join("root"))
                .expect_err(line)
                .to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn nothing_of_an_environment_is_recorded() {
        let dir = Dir::new("private");
        dir.file("/proc/1/environ", "SECRET=x\0container=lxc\0TOKEN=y\0");
        dir.file("/proc/7/comm", "mysqld\n");
        dir.file("/proc/8/comm", "irqbalance\n");
        dir.file("/proc/8/cmdline", "irqbalance\0");
        let text = record(Tree::at(dir.path()));
        assert!(text.contains("/proc/1/environ = container=lxc\n"), "{text}");
        assert!(text.contains("/proc/8/comm = irqbalance\n"), "{text}");
        assert!(
            !text.contains("SECRET") && !text.contains("TOKEN") && !text.contains("mysqld"),
            "{text}"
        );
    }
}
