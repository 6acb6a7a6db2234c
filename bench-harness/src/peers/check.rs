//! Trying servers: each is started, asked for every protocol it is said to speak, and stopped.
//!
//! Why: a row of the registry that does not work here is better found in a minute than after a night of
//! trials. Invariants: a server that is missing is a result and no error; nothing that was started is left.
//! Next: `registry` for what is tried.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{Peer, Place, probe};

/// What came of trying one server.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Its name.
    pub name: String,
    /// What its program says of its version.
    pub version: Option<String>,
    /// What it says of how it was built, where the registry knows how to ask.
    pub build: Option<String>,
    /// What it answered, by protocol.
    pub answers: Vec<(String, String)>,
    /// Why it was not tried.
    pub missing: Option<String>,
    /// What went wrong.
    pub failed: Option<String>,
}

/// Tries `peer` at `place`.
#[must_use]
pub fn run(peer: &Peer, place: &Place) -> Tried {
    let mut tried = Tried {
        name: peer.name.clone(),
        version: None,
        build: None,
        answers: Vec::new(),
        missing: None,
        failed: None,
    };
    if let Err(error) = peer.program() {
        tried.missing = Some(format!("{error:#}"));
        return tried;
    }
    match peer.version() {
        Ok(version) => tried.version = Some(version),
        Err(error) => tried.failed = Some(format!("{error:#}")),
    }
    tried.build = peer.build();
    if let Err(error) = ask_all(peer, place, &mut tried.answers) {
        tried.failed = Some(format!("{error:#}"));
    }
    tried
}

fn ask_all(peer: &Peer, place: &Place, answers: &mut Vec<(String, String)>) -> Result<()> {
    let mut server = peer.start(place)?;
    for protocol in &peer.protocols {
        let answer = probe::speaks(protocol, peer.addr(place, protocol))
            .with_context(|| format!("{} does not speak {protocol}", peer.name))?;
        answers.push((protocol.clone(), answer.to_owned()));
    }
    let pid = server.pid();
    server.stop();
    drop(server);
    if Path::new(&format!("/proc/{pid}")).exists() {
        bail!("process {pid} is still there after it was stopped");
    }
    Ok(())
}
