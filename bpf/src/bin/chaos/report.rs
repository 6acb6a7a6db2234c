//! `chaos report`: a journal as Markdown and as a page.

use std::path::Path;

use bpf::error::Result;
use bpf::experiment::report::Report;
use bpf::experiment::write_whole;
use clap::{Arg, ArgMatches, Command};

use crate::cli;

/// Options of the command.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").help(help)
    };
    Command::new("report")
        .about("Makes a journal readable: Markdown is printed, unless a file is named")
        .arg(Arg::new("journal").required(true).value_name("JOURNAL"))
        .arg(option("html", "write a page that needs nothing else"))
        .arg(option("markdown", "write Markdown"))
}

/// Writes the report.
pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let report = Report::read(Path::new(cli::text(matches, "journal")))?;
    let (html, markdown) = (cli::given(matches, "html"), cli::given(matches, "markdown"));
    if let Some(path) = html {
        write_whole(Path::new(path), &report.html())?;
    }
    if let Some(path) = markdown {
        write_whole(Path::new(path), &report.markdown())?;
    }
    if html.is_none() && markdown.is_none() {
        print!("{}", report.markdown());
    }
    Ok(())
}
