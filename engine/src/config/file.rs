//! The TOML file, flattened to dotted keys and the text a flag would have.

use super::{Kind, Row};
use crate::error::{Error, Kind as ErrorKind};
use std::io::Read;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The longest configuration file.
pub const FILE_MAX_BYTES: u64 = 1 << 20;

/// One setting of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Dotted.
    pub(super) key: String,
    /// As a flag would have it; or what it is instead of a value an option can have.
    pub(super) text: Result<String, &'static str>,
    /// From 1.
    pub(super) line: usize,
}

/// Reads a whole file, which happens before any shard runs.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::io("read", source, path.display().to_string());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let invalid = |problem: &str| {
        Error::new("read", ErrorKind::Invalid, format!("{}: {problem}", path.display()))
    };
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(invalid("over 1 MiB, this is no configuration file"));
    }
    String::from_utf8(bytes).map_err(|_| invalid("not UTF-8 text"))
}

/// The settings of `text` in the order of their keys; `name` is for messages.
pub(super) fn settings(name: &str, text: &str) -> Result<Vec<Setting>, Error> {
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let problem = error.message().replace('\n', ", ");
        let context = format!("{name} line {line}: {problem}");
        Error::new("parse", ErrorKind::Invalid, context).remedied("correct the TOML there")
    })?;
    let mut found = Vec::new();
    // Depth is bounded by the parser; a work list keeps the stack out of it.
    let mut tables = vec![(String::new(), root.into_inner())];
    while let Some((prefix, table)) = tables.pop() {
        for (part, value) in table {
            let key = format!("{prefix}{}", part.get_ref());
            let line = line_of(text, part.span().start);
            match value.into_inner() {
                DeValue::Table(inner) => tables.push((key + ".", inner)),
                other => found.push(Setting { key, text: text_of(&other), line }),
            }
        }
    }
    found.sort_by_key(|setting| setting.line);
    Ok(found)
}

fn text_of(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Integer(_) => Err("a number that is not decimal"),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Array(items) => {
            let texts: Result<Vec<String>, _> =
                items.iter().map(|item| text_of(item.get_ref())).collect();
            Ok(texts?.join(","))
        }
        DeValue::Float(_) => Err("a fraction"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// How `row` would be written in a file, for a template.
pub(super) fn line(row: &Row, value: &str) -> String {
    let key = row.key.rsplit_once('.').map_or(row.key, |(_section, key)| key);
    match row.kind {
        Kind::Bool | Kind::Integer { .. } if value != "off" || matches!(row.kind, Kind::Bool) => {
            format!("{key} = {value}")
        }
        _ => {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{key} = \"{escaped}\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_dotted_keys_with_lines() {
        let text = "data = \"d\"\n[engine]\nshards = 4\ncpus = [0, 2]\n\n[cache]\nx.y = true\n";
        let found = settings("a.toml", text).unwrap();
        let flat: Vec<(&str, &str, usize)> = found
            .iter()
            .map(|setting| (setting.key.as_str(), setting.text.as_deref().unwrap(), setting.line))
            .collect();
        assert_eq!(
            flat,
            [
                ("data", "d", 1),
                ("engine.shards", "4", 3),
                ("engine.cpus", "0,2", 4),
                ("cache.x.y", "true", 7)
            ]
        );
    }

    #[test]
    fn what_no_option_can_be_is_named() {
        let found = settings("a.toml", "a = 1.5\nb = 2020-01-01\nc = [{}]\nd = 0x1f\n").unwrap();
        let problems: Vec<&str> = found.iter().map(|s| *s.text.as_ref().unwrap_err()).collect();
        assert_eq!(problems, ["a fraction", "a date", "a table", "a number that is not decimal"]);
    }

    #[test]
    fn broken_files_say_where() {
        let error = settings("a.toml", "x = 1\ny = = 2\n").unwrap_err().to_string();
        assert!(error.starts_with("parse a.toml line 2: "), "{error}");
        assert!(error.ends_with("; correct the TOML there"), "{error}");
        let error = settings("a.toml", "x = 1\nx = 2\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        let deep = "a = ".to_owned() + &"[".repeat(100_000);
        assert!(settings("a.toml", &deep).is_err());
    }

    #[test]
    fn unreadable_files_say_why() {
        let error = read(Path::new("/nonexistent.toml")).unwrap_err().to_string();
        assert_eq!(error, "read /nonexistent.toml: ENOENT; correct the path");
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("over 1 MiB"), "{error}");
    }
}
