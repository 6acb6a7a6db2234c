//! The option table, and reading a command line and a file by it.

use super::values::Entry;
use super::{Kind, Origin, Row, Value, Values, file};
use crate::error::{Error, Kind as ErrorKind};
use std::ffi::OsString;
use std::path::Path;

/// All options of one program, and its commands.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) program: &'static str,
    pub(super) about: &'static str,
    pub(super) commands: &'static [(&'static str, &'static str)],
    pub(super) rows: Vec<&'static Row>,
}

/// A command line, understood.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// All options.
    pub values: Values,
    /// The command, if one was given.
    pub command: Option<&'static str>,
    /// `--help` was asked for; the values are then the defaults.
    pub help: bool,
    /// `--version` was asked for; the values are then the defaults.
    pub version: bool,
}

impl Table {
    /// The table of `program`, which is about `about` and runs the options in `groups`; `commands`
    /// are words it understands, each with its meaning.
    ///
    /// # Panics
    /// If a row contradicts itself or another one: a name or key twice, a default that is not
    /// allowed, no default for an option that cannot be off.
    #[must_use]
    pub fn new(
        program: &'static str,
        about: &'static str,
        commands: &'static [(&'static str, &'static str)],
        groups: &[&'static [Row]],
    ) -> Self {
        let rows: Vec<&'static Row> = groups.iter().copied().flatten().collect();
        for (n, row) in rows.iter().enumerate() {
            check_row(row);
            for other in &rows[..n] {
                assert!(row.name != other.name, "option --{} is there twice", row.name);
                assert!(
                    row.key.is_empty() || row.key != other.key,
                    "key {} is there twice",
                    row.key
                );
            }
        }
        Self { program, about, commands, rows }
    }

    /// The rows in order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> + '_ {
        self.rows.iter().copied()
    }

    /// Reads the arguments (without the program's name) and the file they name with `--config`.
    ///
    /// # Errors
    /// For the first option, word or file that is wrong.
    pub fn load(&self, args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
        self.parse(args, file::read)
    }

    /// [`Table::load`] with the file's text from `read`.
    ///
    /// # Errors
    /// For the first option, word or file that is wrong.
    pub fn parse(
        &self,
        args: impl IntoIterator<Item = OsString>,
        read: impl FnOnce(&Path) -> Result<String, Error>,
    ) -> Result<Parsed, Error> {
        let line = self.read_flags(args)?;
        let mut values = self.defaults();
        let (command, help, version) = (line.command, line.help, line.version);
        if help || version {
            return Ok(Parsed { values, command, help, version });
        }
        let flags = self.check_flags(&line)?;
        let config = flags.iter().rev().find(|(n, _value)| self.rows[*n].name == "config");
        if let Some((_, Some(Value::Path(path)))) = config {
            self.apply_file(&mut values, path, &read(path)?)?;
        }
        for (n, value) in flags {
            values.entries[n].value = value;
            values.entries[n].origin = Origin::Flag;
        }
        Ok(Parsed { values, command, help, version })
    }

    /// What holds without flags and file.
    #[must_use]
    pub fn defaults(&self) -> Values {
        let entries = self.rows.iter().map(|row| Entry {
            row,
            // Checked by `new`.
            value: row.default.and_then(|text| row.kind.parse(text).ok()),
            origin: Origin::Default,
        });
        Values { entries: entries.collect() }
    }

    fn read_flags(&self, args: impl IntoIterator<Item = OsString>) -> Result<Line, Error> {
        let mut line = Line::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let arg = text(arg)?;
            match arg.as_str() {
                "--help" | "-h" => line.help = true,
                "--version" | "-V" => line.version = true,
                _ => match arg.strip_prefix("--") {
                    Some(flag) => self.read_flag(flag, &mut args, &mut line)?,
                    None if arg.starts_with('-') => return Err(self.unknown(&arg)),
                    None => self.read_word(&arg, &mut line)?,
                },
            }
        }
        Ok(line)
    }

    fn read_flag(
        &self,
        flag: &str,
        args: &mut impl Iterator<Item = OsString>,
        line: &mut Line,
    ) -> Result<(), Error> {
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let row = |name: &str| self.rows.iter().position(|row| row.name == name);
        let is_bool = |n: usize| matches!(self.rows[n].kind, Kind::Bool);
        if let Some(n) = row(name) {
            let value = match given {
                Some(value) => value,
                None if is_bool(n) => "true".to_owned(),
                None => match args.next() {
                    Some(value) => text(value)?,
                    None => return Err(self.missing(n)),
                },
            };
            line.flags.push((n, value));
            return Ok(());
        }
        let negated = name.strip_prefix("no-").and_then(row).filter(|n| is_bool(*n));
        match (negated, given) {
            (Some(n), None) => {
                line.flags.push((n, "false".to_owned()));
                Ok(())
            }
            _ => Err(self.unknown(&format!("--{name}"))),
        }
    }

    fn read_word(&self, word: &str, line: &mut Line) -> Result<(), Error> {
        let known = self.commands.iter().find(|command| command.0 == word);
        let Some((name, _about)) = known else {
            let error = Error::new("command", ErrorKind::Invalid, format!("`{word}`: unknown"));
            let names = self.commands.iter().map(|command| command.0);
            return Err(error.remedied(advice(nearest(word, names).map(str::to_owned))));
        };
        if let Some(first) = line.command {
            let context = format!("`{word}`: `{first}` was given before");
            return Err(Error::new("command", ErrorKind::Invalid, context).remedied("give one"));
        }
        line.command = Some(name);
        Ok(())
    }

    fn check_flags(&self, line: &Line) -> Result<Vec<(usize, Option<Value>)>, Error> {
        let checked = line.flags.iter().map(|(n, text)| {
            let row = self.rows[*n];
            Ok((*n, check(row, &format!("--{}", row.name), text)?))
        });
        checked.collect()
    }

    fn apply_file(&self, values: &mut Values, path: &Path, text: &str) -> Result<(), Error> {
        let name = path.display().to_string();
        for setting in file::settings(&name, text)? {
            let place = format!("{} in {name} line {}", setting.key, setting.line);
            let Some(entry) = values.entries.iter_mut().find(|entry| entry.row.key == setting.key)
            else {
                let keys = self.rows.iter().map(|row| row.key);
                let near = nearest(&setting.key, keys).map(str::to_owned);
                let context = format!("{place}: unknown");
                let error = Error::new("option", ErrorKind::Invalid, context);
                return Err(error.remedied(advice(near)));
            };
            let text = setting.text.map_err(|problem| wrong(entry.row, &place, problem))?;
            entry.value = check(entry.row, &place, &text)?;
            entry.origin = Origin::File;
        }
        Ok(())
    }

    fn unknown(&self, flag: &str) -> Error {
        let own = ["help", "version"].into_iter();
        let names = self.rows.iter().map(|row| row.name).chain(own);
        let near = nearest(flag.trim_start_matches('-'), names).map(|name| format!("--{name}"));
        let error = Error::new("option", ErrorKind::Invalid, format!("{flag}: unknown"));
        error.remedied(advice(near))
    }

    fn missing(&self, n: usize) -> Error {
        let row = self.rows[n];
        wrong(row, &format!("--{}", row.name), "no value")
    }
}

/// The command line before its values are checked.
#[derive(Default)]
struct Line {
    flags: Vec<(usize, String)>,
    command: Option<&'static str>,
    help: bool,
    version: bool,
}

fn check_row(row: &Row) {
    let name = row.name;
    let plain = |text: &str| {
        text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
        })
    };
    assert!(
        !name.is_empty() && plain(name) && plain(row.key),
        "option --{name}: a bad name or key"
    );
    assert!(!["help", "version"].contains(&name), "option --{name} is built in");
    assert!(!row.doc.is_empty() && !row.doc.ends_with('.'), "option --{name}: its doc is a phrase");
    assert!(
        !(row.optional && matches!(row.kind, Kind::Bool)),
        "option --{name}: a truth cannot be unset"
    );
    match row.default {
        None => assert!(row.optional, "option --{name} has no default and cannot be off"),
        Some(text) => {
            let value = row.kind.parse(text);
            assert!(value.is_ok(), "option --{name}: its default is not allowed: {value:?}");
        }
    }
}

fn text(arg: OsString) -> Result<String, Error> {
    arg.into_string().map_err(|arg| {
        let context = format!("`{}`: not UTF-8", arg.to_string_lossy());
        Error::new("option", ErrorKind::Invalid, context)
    })
}

/// Reads the value of an option given at `place`; none for `off`.
fn check(row: &Row, place: &str, text: &str) -> Result<Option<Value>, Error> {
    if row.optional && text == "off" {
        return Ok(None);
    }
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    let value = row.kind.parse(text);
    value.map(Some).map_err(|problem| wrong(row, place, &format!("`{shown}` is {problem}")))
}

fn wrong(row: &Row, place: &str, problem: &str) -> Error {
    let error = Error::new("option", ErrorKind::Invalid, format!("{place}: {problem}"));
    let off = if row.optional { ", or off" } else { "" };
    error.remedied(format!("give {}{off}", row.kind.expected()))
}

fn advice(near: Option<String>) -> String {
    near.map_or_else(|| "see --help".to_owned(), |near| format!("did you mean {near}?"))
}

/// The name most like `given`, if it is like it at all.
fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (given.chars().count() / 3).clamp(1, 3);
    let measured = names.filter(|name| !name.is_empty()).map(|name| (distance(given, name), name));
    measured.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// Edits between two names: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ENGINE;

    const ROWS: &[Row] = &[
        Row {
            name: "cache",
            key: "cache.listen",
            kind: Kind::Address,
            default: Some("127.0.0.1:6379"),
            optional: true,
            reload: false,
            doc: "where the cache listens",
        },
        Row {
            name: "maxmemory",
            key: "cache.maxmemory",
            kind: Kind::Size { min_bytes: 0, max_bytes: u64::MAX },
            default: Some("0"),
            optional: false,
            reload: true,
            doc: "memory for data",
        },
        Row {
            name: "slots",
            key: "cache.slots",
            kind: Kind::Bool,
            default: Some("false"),
            optional: false,
            reload: false,
            doc: "count keys per slot",
        },
    ];

    fn table() -> Table {
        Table::new("shardd", "serves", &[("doctor", "checks this machine")], &[ENGINE, ROWS])
    }

    fn run(args: &[&str], file: &str) -> Result<Parsed, Error> {
        let args = args.iter().map(OsString::from);
        table().parse(args, |path| {
            assert_eq!(path, Path::new("a.toml"));
            Ok(file.to_owned())
        })
    }

    fn fails(args: &[&str], file: &str) -> String {
        run(args, file).unwrap_err().to_string()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "[cache]\nmaxmemory = \"1gb\"\nslots = true\n[engine]\nmax_clients = 7\n";
        let args = ["--config", "a.toml", "--maxmemory=64mb", "--no-slots", "doctor"];
        let parsed = run(&args, file).unwrap();
        let values = &parsed.values;
        assert_eq!(values.size_bytes("maxmemory"), 64 << 20);
        assert!(!values.flag("slots"));
        assert_eq!(values.integer("max-clients"), 7);
        assert_eq!(values.address("cache").to_string(), "127.0.0.1:6379");
        let origins = ["maxmemory", "max-clients", "cache"].map(|name| values.origin(name));
        assert_eq!(origins, [Origin::Flag, Origin::File, Origin::Default]);
        assert_eq!(parsed.command, Some("doctor"));
        let parsed =
            run(&["--slots", "--cache", "off", "--maxmemory", "1", "--maxmemory", "2"], "");
        let values = parsed.unwrap().values;
        assert_eq!(values.address_if_set("cache"), None);
        assert_eq!((values.flag("slots"), values.size_bytes("maxmemory")), (true, 2));
    }

    #[test]
    fn errors_name_option_place_value_range_and_remedy() {
        for (args, expected) in [
            (
                &["--shards", "0"][..],
                "option --shards: `0` is too small; give a whole number from 1 to 1024, or off",
            ),
            (&["--shrads", "2"], "option --shrads: unknown; did you mean --shards?"),
            (&["--quux"], "option --quux: unknown; see --help"),
            (&["-x"], "option -x: unknown; see --help"),
            (&["--no-shards"], "option --no-shards: unknown; did you mean --shards?"),
            (
                &["--slots=maybe"],
                "option --slots: `maybe` is neither true nor false; give true or false",
            ),
            (&["docter"], "command `docter`: unknown; did you mean doctor?"),
            (&["doctor", "doctor"], "command `doctor`: `doctor` was given before; give one"),
        ] {
            assert_eq!(fails(args, ""), expected);
        }
        let missing = fails(&["--maxmemory"], "");
        assert!(
            missing.starts_with("option --maxmemory: no value; give a size from 0"),
            "{missing}"
        );
        let long = fails(&["--maxmemory", &"\u{1b}x".repeat(500)], "");
        assert!(long.len() < 600 && !long.contains('\u{1b}'), "{long}");
    }

    #[test]
    fn errors_in_the_file_name_its_line() {
        let config = ["--config", "a.toml"];
        assert_eq!(
            fails(&config, "[engine]\n\nshards = 5000\n"),
            "option engine.shards in a.toml line 3: `5000` is too large; give a whole number from \
             1 to 1024, or off"
        );
        assert_eq!(
            fails(&config, "[cache]\nmaxmemroy = 1\n"),
            "option cache.maxmemroy in a.toml line 2: unknown; did you mean cache.maxmemory?"
        );
        assert!(fails(&config, "engine.shards = 1.5").contains("line 1: a fraction; give a whole"));
        assert!(fails(&config, "config = \"b.toml\"").contains("unknown"), "flag only");
        let args = ["--config", "a.toml", "--shards", "2"];
        assert!(run(&args, "engine.shards = 0").is_err(), "also where a flag hides it");
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        assert!(run(&["--help", "--shards", "0"], "").unwrap().help);
        assert!(run(&["-V"], "").unwrap().version);
        let error = table().load([OsString::from("--config=/nonexistent")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_reload_takes_over_what_it_may() {
        let mut before = run(&[], "").unwrap().values;
        let file = "cache.maxmemory = 10\ncache.slots = true";
        let after = run(&["--config", "a.toml"], file).unwrap().values;
        let changes = before.changes(&after);
        let shown: Vec<_> = changes
            .iter()
            .map(|c| (c.name, c.reload, c.before.as_str(), c.after.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("config", false, "off", "a.toml"),
                ("maxmemory", true, "0", "10"),
                ("slots", false, "false", "true")
            ]
        );
        before.reload(&after);
        assert_eq!((before.size_bytes("maxmemory"), before.flag("slots")), (10, false));
    }

    #[test]
    fn rows_that_contradict_are_refused() {
        let twice = std::panic::catch_unwind(|| Table::new("x", "x", &[], &[ROWS, ROWS]));
        assert!(twice.is_err());
        let bad = Row { default: Some("0"), kind: Kind::Integer { min: 1, max: 2 }, ..ROWS[1] };
        assert!(std::panic::catch_unwind(|| check_row(&bad)).is_err());
        let bad = Row { default: None, ..ROWS[1] };
        assert!(std::panic::catch_unwind(|| check_row(&bad)).is_err());
        check_row(&ROWS[1]);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("shards", "shards"), 0);
        assert_eq!(distance("shrads", "shards"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
