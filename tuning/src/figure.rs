//! The figure of one run: of a command of the user, or of a load of our own.
//!
//! Invariants: a command that fails has no figure; a figure is a finite number. Next: `measure`, `load`.

use std::process::{Command, Stdio};

use regex::Regex;
use serde_json::Value;

use crate::error::{During as _, Error, Result};

/// Where a figure comes from.
pub enum Source<'a> {
    /// A command and its arguments, and how the figure is found in what it prints.
    Command(Vec<String>, Finder),
    /// A load of our own.
    Load(&'a dyn Fn() -> Result<f64>),
}

/// How a figure is found in what a command prints.
pub enum Finder {
    /// It is the last line.
    LastLine,
    /// It is the first group of the last match.
    Regex(Regex),
    /// It is this field of the JSON that is printed, with dots between the names and numbers of what it is in.
    Field(String),
}

impl Source<'_> {
    /// Runs it once.
    ///
    /// # Errors
    /// It fails, or there is no figure.
    pub fn figure(&self) -> Result<f64> {
        match self {
            Self::Command(words, finder) => command(words, finder),
            Self::Load(load) => load(),
        }
    }
}

fn command(words: &[String], finder: &Finder) -> Result<f64> {
    let Some((program, args)) = words.split_first() else {
        return Err(Error::new("measure: a command is wanted behind --"));
    };
    let name = words.join(" ");
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .during(|| format!("run {name}"))?;
    if !output.status.success() {
        return Err(Error::new(format!("run {name}: {}", output.status)));
    }
    finder.find(&String::from_utf8_lossy(&output.stdout)).during(|| format!("run {name}"))
}

impl Finder {
    fn find(&self, text: &str) -> Result<f64> {
        let found = match self {
            Self::Regex(regex) => {
                let last = regex.captures_iter(text).last();
                last.and_then(|groups| groups.get(1)).map(|group| group.as_str().to_owned())
            }
            Self::Field(field) => return number(text, field),
            Self::LastLine => text
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .map(|line| line.trim().to_owned()),
        };
        let found = found.ok_or_else(|| Error::new("it printed no figure"))?;
        let figure: f64 = found.parse().map_err(|_| {
            Error::new(format!(
                "{found:?} is no number; --regex '([0-9.]+) ms' finds one in a line, --field NAME in JSON"
            ))
        })?;
        if figure.is_finite() { Ok(figure) } else { Err(Error::new(format!("{figure}"))) }
    }
}

/// A field of the JSON that a text is, or that its last line is which is any.
fn number(text: &str, field: &str) -> Result<f64> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let is_whole = |value: &Value| value.is_object() || value.is_array();
    let of_lines = || text.lines().rev().filter_map(parse).find(is_whole);
    let json = parse(text).filter(is_whole).or_else(of_lines);
    let json = json.ok_or_else(|| Error::new("it printed no JSON"))?;
    let mut value = &json;
    for name in field.split('.') {
        let inner = match value {
            Value::Array(list) => name.parse().ok().and_then(|at: usize| list.get(at)),
            other => other.get(name),
        };
        value = inner.ok_or_else(|| {
            let names = value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
            let names =
                names.map_or_else(String::new, |names| format!("; there are {}", names.join(", ")));
            Error::new(format!("--field {field}: its JSON has no {name}{names}"))
        })?;
    }
    value.as_f64().ok_or_else(|| Error::new(format!("--field {field}: {value} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_json() {
        let field = |name: &str| Finder::Field(name.to_owned());
        let text = "{\n \"rate\": 12.5,\n \"steps\": [{\"p99\": 3}, {\"p99\": 4}]\n}\n";
        assert_eq!(field("rate").find(text), Ok(12.5));
        assert_eq!(field("steps.1.p99").find(text), Ok(4.0));
        assert_eq!(field("rate").find("warming up\n{\"rate\": 1}\n{\"rate\": 2}\ndone\n"), Ok(2.0));
        for (name, text, why) in [
            ("rat", text, "has no rat; there are rate, steps"),
            ("steps.2", text, "has no 2"),
            ("steps.x", text, "has no x"),
            ("steps", text, "is no number"),
            ("rate.x", text, "has no x"),
            ("rate", "12.5\n", "no JSON"),
            ("rate", "", "no JSON"),
        ] {
            let error = field(name).find(text).expect_err(name).to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn lines_and_matches() {
        assert_eq!(Finder::LastLine.find("a\n 3.5 \n\n"), Ok(3.5));
        for (text, why) in [("", "no figure"), ("many", "is no number"), ("inf", "inf")] {
            let error = Finder::LastLine.find(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
        let regex = Finder::Regex(Regex::new("([0-9]+) ms").expect("a regex"));
        assert_eq!(regex.find("1 ms 2 ms 3 s"), Ok(2.0));
    }
}
