//! `netprobe pcap`: packets of a device into a file, until a time is over, the file is full or a signal comes.

use std::fs::File;
use std::io::BufWriter;
use std::time::Instant;

use bpf::error::{During as _, Result};
use bpf::metrics::pcap::{Pcap, SNAPLEN_MAX};
use bpf::{netns, registry};
use clap::ArgMatches;

use crate::{Stop, cli};

/// Bytes of the header of Ethernet: less would say nothing.
const SNAPLEN_MIN: u64 = 14;

/// Writes the file.
pub(crate) fn run(matches: &ArgMatches, stop: &Stop) -> Result<()> {
    let target = cli::target(matches)?;
    let snaplen = cli::number(matches, "snaplen", (SNAPLEN_MIN, SNAPLEN_MAX.into()))?;
    let max_bytes = cli::number(matches, "max-bytes", (1, u64::MAX))?;
    let duration = cli::duration(matches)?;
    let path = cli::text(matches, "file");
    let file = File::create(path).during(|| format!("make file {path}"))?;
    let netns = Some(cli::text(matches, "netns")).filter(|name| !name.is_empty());
    if let Some(name) = netns {
        netns::enter(name)?;
    }
    // What was left behind goes first.
    registry::all()?;
    let pcap = Pcap::start(&target, u32::try_from(snaplen).unwrap_or(SNAPLEN_MAX), netns)?;
    eprintln!("netprobe: writing {path}");
    let begin = Instant::now();
    let ends = || stop.has_come() || duration.is_some_and(|duration| begin.elapsed() >= duration);
    let written = pcap.write(&mut BufWriter::new(file), max_bytes, ends);
    pcap.end()?;
    let written = written?;
    eprintln!(
        "netprobe: {} packets, {} bytes, {} packets lost",
        written.packets, written.bytes, written.lost
    );
    Ok(())
}
