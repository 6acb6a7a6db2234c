//! What people read about the options: `--help`, the manual, a file to start from.

use super::{Kind, Row, Table, file};
use std::fmt::Write;

/// Text is broken to this width.
const WIDTH: usize = 100;
/// Where descriptions begin.
const INDENT: usize = 30;

impl Table {
    /// The text of `--help`.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = format!("{}: {}\n\n", self.program, self.about);
        let command = if self.commands.is_empty() { "" } else { " [COMMAND]" };
        let _ = writeln!(text, "usage: {}{command} [OPTION]...", self.program);
        if !self.commands.is_empty() {
            text.push_str("\ncommands:\n");
            for (name, about) in self.commands {
                entry(&mut text, &format!("  {name}"), about);
            }
        }
        for section in self.sections() {
            let _ = writeln!(text, "\n{section}:");
            for row in self.rows().filter(|row| row.section() == section) {
                entry(&mut text, &format!("  {}", synopsis(row)), &describe(row));
            }
        }
        text.push_str("\nother:\n");
        entry(&mut text, "  --help", "print this");
        entry(&mut text, "  --version", "print the version");
        text.push_str(
            "\nAn option is given as --name value or --name=value; flags win over the file.\n",
        );
        text
    }

    /// The manual's table, in Markdown.
    #[must_use]
    pub fn manual(&self) -> String {
        let mut text = String::new();
        for section in self.sections() {
            let _ = writeln!(text, "### {section}\n");
            text.push_str("| option | file key | value | default | reload | meaning |\n");
            text.push_str("|---|---|---|---|---|---|\n");
            for row in self.rows().filter(|row| row.section() == section) {
                let key =
                    if row.key.is_empty() { "-".to_owned() } else { format!("`{}`", row.key) };
                let off = if row.optional { ", or `off`" } else { "" };
                let default = default(row);
                let reload = if row.reload { "yes" } else { "no" };
                let (expected, doc) = (cell(&row.kind.expected()), cell(row.doc));
                let _ = writeln!(
                    text,
                    "| `--{}` | {key} | {expected}{off} | `{default}` | {reload} | {doc} |",
                    row.name
                );
            }
            text.push('\n');
        }
        text
    }

    /// A configuration file that sets everything to its default, commented out.
    #[must_use]
    pub fn template(&self) -> String {
        let mut text = String::new();
        for section in self.sections() {
            let rows = || self.rows().filter(|row| row.section() == section && !row.key.is_empty());
            if rows().next().is_none() {
                continue;
            }
            if section != "general" {
                let _ = writeln!(text, "[{section}]");
            }
            for row in rows() {
                let _ = writeln!(text, "# {}; {}", row.doc, row.kind.expected());
                let _ = writeln!(text, "#{}\n", file::line(row, default(row)));
            }
        }
        text
    }

    /// Each section once, in the order of its first row.
    fn sections(&self) -> Vec<&'static str> {
        let mut sections = Vec::new();
        for row in self.rows() {
            if !sections.contains(&row.section()) {
                sections.push(row.section());
            }
        }
        sections
    }
}

fn default(row: &Row) -> &'static str {
    row.default.unwrap_or("off")
}

fn synopsis(row: &Row) -> String {
    match row.kind {
        Kind::Bool if row.default == Some("true") => format!("--no-{}", row.name),
        Kind::Bool => format!("--{}", row.name),
        kind => format!("--{} {}", row.name, kind.placeholder()),
    }
}

fn describe(row: &Row) -> String {
    let mut text = row.doc.to_owned();
    match row.kind {
        Kind::Bool => {
            let _ = write!(text, " [{}]", default(row));
        }
        kind => {
            let off = if row.optional { ", or off" } else { "" };
            let _ = write!(text, "; {}{off} [{}]", kind.expected(), default(row));
        }
    }
    text
}

/// One entry: the name, and beside it or below it its description.
fn entry(text: &mut String, name: &str, about: &str) {
    text.push_str(name);
    let mut column = name.len();
    if column + 2 > INDENT {
        text.push('\n');
        column = 0;
    }
    for word in about.split(' ') {
        if column > INDENT && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        let gap = if column <= INDENT { INDENT - column } else { 1 };
        let _ = write!(text, "{:gap$}{word}", "");
        column += gap + word.len();
    }
    text.push('\n');
}

/// Text inside a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ENGINE;
    use std::ffi::OsString;
    use std::path::Path;

    fn table() -> Table {
        Table::new("shardd", "serves", &[("doctor", "checks this machine")], &[ENGINE])
    }

    #[test]
    fn help_names_every_option_with_its_default_and_no_other() {
        let table = table();
        let (help, manual) = (table.help(), table.manual());
        for row in table.rows() {
            let lines: Vec<&str> =
                help.lines().filter(|line| line.trim_start().starts_with(&synopsis(row))).collect();
            assert!(!lines.is_empty(), "--{} is missing", row.name);
            assert!(help.contains(&format!("[{}]", default(row))), "--{}", row.name);
            assert_eq!(manual.matches(&format!("| `--{}` |", row.name)).count(), 1);
        }
        let flags = help.lines().filter(|line| line.starts_with("  --")).count();
        assert_eq!(flags, table.rows().count() + 2, "--help and --version beside the table's");
        for line in help.lines() {
            assert!(line.len() <= WIDTH, "{} columns: {line}", line.len());
        }
    }

    #[test]
    fn help_looks_like_this() {
        const ROWS: &[Row] = &[
            Row {
                name: "maxmemory",
                key: "cache.maxmemory",
                kind: Kind::Size { min_bytes: 0, max_bytes: u64::MAX },
                default: Some("0"),
                optional: false,
                reload: true,
                doc: "memory for data over all shards, above which keys are evicted; 0 for no limit",
            },
            Row {
                name: "an-option-with-a-long-name",
                key: "cache.long",
                kind: Kind::Choice(&["a", "b"]),
                default: None,
                optional: true,
                reload: false,
                doc: "nothing",
            },
        ];
        let table = Table::new("cache", "a cache", &[], &[ROWS]);
        let expected = "\
cache: a cache

usage: cache [OPTION]...

cache:
  --maxmemory SIZE            memory for data over all shards, above which keys are evicted; 0 for
                              no limit; a size from 0, such as 64mb [0]
  --an-option-with-a-long-name WORD
                              nothing; one of a, b, or off [off]

other:
  --help                      print this
  --version                   print the version

An option is given as --name value or --name=value; flags win over the file.
";
        assert_eq!(table.help(), expected);
        let manual = table.manual();
        let row = "| `--maxmemory` | `cache.maxmemory` | a size from 0, such as 64mb | `0` | yes |";
        assert!(manual.contains(row), "{manual}");
    }

    #[test]
    fn the_template_read_back_is_the_default() {
        let table = table();
        let template = table.template();
        let file: String = template
            .lines()
            .map(|line| {
                let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
                setting.unwrap_or(line).to_owned() + "\n"
            })
            .collect();
        let args = [OsString::from("--config=x.toml")];
        let parsed = table.parse(args, |_: &Path| Ok(file)).unwrap();
        let names: Vec<_> =
            table.defaults().changes(&parsed.values).iter().map(|c| c.name).collect();
        assert_eq!(names, ["config"]);
        let set =
            parsed.values.iter().filter(|(_, _, origin)| origin.to_string() == "file").count();
        assert_eq!(set, table.rows().filter(|row| !row.key.is_empty()).count());
    }
}
