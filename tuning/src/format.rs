//! How a setting is written in its file, and which values are wanted of it.
//!
//! Invariant: two texts of the same value are equal by [`Format::same`], whatever the kernel adds when it prints it. Next: `knob`.

use serde::{Deserialize, Serialize};

use crate::cpus::CpuSet;

/// How the kernel writes a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A word or a number, or several of them with spaces in between.
    Words,
    /// All possible words, with brackets around the one in force.
    Choice,
    /// A set of processors in hexadecimal.
    Mask,
    /// A set of processors as a list.
    List,
}

/// The choices of a file such as `[none] mq-deadline`, and the one in force.
pub(crate) fn choices(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut current = None;
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
        current = inner.or(current);
        all.push(inner.unwrap_or(word));
    }
    Some((all, current?))
}

impl Format {
    /// The value in the text of a file, as people read it.
    #[must_use]
    pub fn value(self, text: &str) -> String {
        let words = || text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Words => words(),
            Self::Choice => choices(text).map_or_else(words, |(_, current)| current.to_owned()),
            Self::Mask => CpuSet::from_mask(text).map_or_else(words, |set| shown(&set)),
            Self::List => CpuSet::from_list(text).map_or_else(words, |set| shown(&set)),
        }
    }

    /// What is to be written to have this value back.
    #[must_use]
    pub fn text(self, file: &str) -> String {
        match self {
            Self::Choice => self.value(file),
            _ => file.to_owned(),
        }
    }

    /// Whether the two texts are of one value.
    #[must_use]
    pub fn same(self, one: &str, other: &str) -> bool {
        self.value(one) == self.value(other)
    }
}

/// No processors are shown as `none`.
fn shown(set: &CpuSet) -> String {
    if set.is_empty() { "none".to_owned() } else { set.to_string() }
}

/// Which values of a setting will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// This one.
    Is(String),
    /// A number that is no smaller.
    AtLeast(u64),
    /// A number that is no larger.
    AtMost(u64),
    /// Any of these, the first where none is in force yet.
    OneOf(Vec<String>),
    /// As many numbers, none of them smaller.
    EachAtLeast(Vec<u64>),
    /// These processors.
    Cpus(CpuSet),
}

impl Want {
    /// Whether the file has it.
    #[must_use]
    pub fn holds(&self, format: Format, text: &str) -> bool {
        let value = format.value(text);
        match self {
            Self::Is(want) => value == *want,
            Self::AtLeast(want) => number(&value).is_some_and(|value| value >= *want),
            Self::AtMost(want) => number(&value).is_some_and(|value| value <= *want),
            Self::OneOf(wants) => wants.contains(&value),
            Self::EachAtLeast(wants) => {
                let values: Vec<_> = value.split(' ').map(number).collect();
                let mut pairs = wants.iter().zip(&values);
                values.len() == wants.len() && pairs.all(|(want, value)| *value >= Some(*want))
            }
            Self::Cpus(want) => value == shown(want),
        }
    }

    /// What to write to have it, given what the file has now.
    #[must_use]
    pub fn to_write(&self, format: Format, text: &str) -> String {
        match self {
            _ if self.holds(format, text) => format.text(text),
            Self::Is(want) => want.clone(),
            Self::AtLeast(want) | Self::AtMost(want) => want.to_string(),
            Self::OneOf(wants) => {
                let offered = choices(text).map(|(all, _)| all);
                let can = |want: &&String| {
                    offered.as_ref().is_none_or(|all| all.contains(&want.as_str()))
                };
                wants.iter().find(can).or(wants.first()).cloned().unwrap_or_default()
            }
            Self::EachAtLeast(wants) => {
                let value = format.value(text);
                let mut values = value.split(' ').map(number);
                let each = wants.iter().map(|want| values.next().flatten().unwrap_or(0).max(*want));
                each.map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
            }
            Self::Cpus(want) if format == Format::Mask => want.mask(),
            Self::Cpus(want) => want.to_string(),
        }
    }

    /// As people read it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Is(want) => want.clone(),
            Self::AtLeast(want) => format!(">= {want}"),
            Self::AtMost(want) => format!("<= {want}"),
            Self::OneOf(wants) => wants.join(" or "),
            Self::EachAtLeast(wants) => {
                let each: Vec<String> = wants.iter().map(u64::to_string).collect();
                format!(">= {}", each.join(" "))
            }
            Self::Cpus(want) => shown(want),
        }
    }
}

/// A number; what has no end is the largest.
fn number(text: &str) -> Option<u64> {
    match text {
        "unlimited" | "max" => Some(u64::MAX),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_many_texts() {
        for (format, one, other) in [
            (Format::Mask, "00000000,00000003", "3"),
            (Format::List, "0-1\n", "0,1"),
            (Format::Choice, "always [madvise] never", "madvise"),
            (Format::Words, "4096\t131072\t6291456", "4096 131072 6291456"),
        ] {
            assert!(format.same(one, other), "{one:?} {other:?}");
        }
        assert!(!Format::Mask.same("3", "1"));
        assert_eq!(Format::Mask.value("0"), "none");
        assert_eq!(Format::Choice.text("always [madvise] never"), "madvise");
    }

    #[test]
    fn what_is_better_already_is_left_alone() {
        assert!(Want::AtLeast(4096).holds(Format::Words, "65535"));
        assert_eq!(Want::AtLeast(4096).to_write(Format::Words, "128"), "4096");
        assert_eq!(Want::AtLeast(4096).to_write(Format::Words, "65535"), "65535");
        assert!(Want::AtLeast(1).holds(Format::Words, "unlimited"));
        assert!(!Want::AtLeast(1).holds(Format::Words, "n/a"));
        assert!(Want::AtMost(10).holds(Format::Words, "1"));
        assert_eq!(Want::AtMost(10).to_write(Format::Words, "60"), "10");
        let fields = Want::EachAtLeast(vec![0, 0, 16]);
        assert!(!fields.holds(Format::Words, "4\t8\t15"));
        assert_eq!(fields.to_write(Format::Words, "4\t8\t15"), "4 8 16");
        assert!(fields.holds(Format::Words, "4\t8\t16"));
        assert!(!fields.holds(Format::Words, "4"));
    }

    #[test]
    fn of_several_words_the_first_that_is_offered() {
        let want = Want::OneOf(vec!["none".to_owned(), "noop".to_owned()]);
        assert_eq!(want.to_write(Format::Choice, "noop [cfq]"), "noop");
        assert_eq!(want.to_write(Format::Choice, "none noop [cfq]"), "none");
        assert!(want.holds(Format::Choice, "[noop] cfq"));
    }

    #[test]
    fn processors_are_written_in_the_format_of_the_file() {
        let want = Want::Cpus(CpuSet::from_list("0-3").expect("a list"));
        assert_eq!(want.to_write(Format::Mask, "0"), "f");
        assert_eq!(want.to_write(Format::List, "7"), "0-3");
        assert!(want.holds(Format::Mask, "00000000,0000000f"));
    }
}
