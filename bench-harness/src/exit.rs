//! The exit codes of `bench`, in one table: commands, `--help` and the documentation take them from here.
//!
//! Why fixed: a script that gates a change acts on the number. Invariants: a number means the same in every command; a
//! number that has been given is not given another meaning. Next: `gate`, which uses all of them.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Done; with a gate, nothing is worse than allowed.
    Ok,
    /// It could not be done: the error is on standard error.
    Failed,
    /// The command line is wrong.
    Usage,
    /// A bar was missed, or something is worse than its budget allows.
    Regression,
    /// The session says nothing, or too little to decide.
    Noisy,
    /// The load was the limit, so that what was asked about is not the server's.
    ClientBound,
    /// The two files cannot be compared.
    NotComparable,
}

/// All of them, with what they mean.
pub const TABLE: &[(Exit, &str)] = &[
    (Exit::Ok, "done; with a gate: nothing is worse than its budget"),
    (Exit::Failed, "could not be done; the reason is on standard error"),
    (Exit::Usage, "the command line is wrong"),
    (Exit::Regression, "a bar was missed, or a figure is worse than its budget"),
    (
        Exit::Noisy,
        "equal servers came out apart (A/A), or the rounds are too few or too noisy to decide",
    ),
    (Exit::ClientBound, "the load was the limit: rates and latencies are the client's"),
    (Exit::NotComparable, "the files are of different machines or scenarios, or hold no samples"),
];

impl Exit {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Regression => 3,
            Self::Noisy => 4,
            Self::ClientBound => 5,
            Self::NotComparable => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Exit codes:");
    for (exit, about) in TABLE {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {}  {about}", exit.code());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../docs/bench.md");

    #[test]
    fn the_documentation_has_the_table() {
        for (exit, about) in TABLE {
            let row = format!("| {} | {about} |", exit.code());
            assert!(DOCS.contains(&row), "docs/bench.md lacks {row}");
            assert!(help().contains(&format!("{}  {about}", exit.code())));
        }
    }

    #[test]
    fn each_number_is_given_once() {
        let codes: Vec<u8> = TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
    }
}
