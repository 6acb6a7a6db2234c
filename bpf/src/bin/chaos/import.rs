//! `chaos import`: an experiment from a file of Chaos Mesh.

use std::path::Path;

use bpf::error::{During as _, Error, Result};
use bpf::experiment::{mesh, read_text, write_whole};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli;

/// Options of the command.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("import")
        .about("Makes an experiment from a file of Chaos Mesh")
        .arg(Arg::new("mesh").required(true).value_name("MESH.yaml").help("NetworkChaos, StressChaos, IOChaos, TimeChaos or PhysicalMachineChaos"))
        .arg(option("dev", "DEVICE", "network device, where the file names none"))
        .arg(option("out", "FILE", "where it goes, as YAML if its name says so, as JSON otherwise [default: printed as JSON]"))
        .arg(Arg::new("partial").long("partial").help("leave out what cannot be mapped").action(ArgAction::SetTrue))
}

/// Writes the experiment.
pub(crate) fn run(matches: &ArgMatches) -> Result<()> {
    let path = cli::text(matches, "mesh");
    let imported =
        read_text(Path::new(path)).and_then(|text| mesh::import(&text, cli::given(matches, "dev")));
    let imported = imported.map_err(|error| error.during(path))?;
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    if !imported.unmapped.is_empty() {
        let lines = imported.unmapped.join("\n  ");
        if !matches.get_flag("partial") {
            return Err(Error::unsupported(format!(
                "{path}: not mapped (leave it out with --partial):\n  {lines}"
            )));
        }
        eprintln!("left out:\n  {lines}");
    }
    let Some(out) = cli::given(matches, "out") else {
        bpf::say!("{:#}", imported.experiment);
        return Ok(());
    };
    let is_yaml = out.ends_with(".yaml") || out.ends_with(".yml");
    let text = if is_yaml {
        serde_yaml_ng::to_string(&imported.experiment).during(|| format!("write {out}"))?
    } else {
        format!("{:#}\n", imported.experiment)
    };
    write_whole(Path::new(out), &text)
}
