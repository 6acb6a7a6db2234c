//! The registry: a file that says of each server how it is started, tried and asked for its version.
//!
//! Why a file: what another server needs is data, and a user adds one without building anything
//! (`--peers`). Invariants: what is read here is valid as a whole, or an error names the server and
//! the field; a name is there once, and a later file replaces what an earlier one said of it.
//! Next: `start` uses it; docs/bench-peers.md says what each field means.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::probe::{Ask, Ready};
use crate::process;

/// What comes with this program.
const BUILT_IN: &str = include_str!("../../peers.toml");
/// What a server may be said to speak: what the load speaks, the broker's, and what is only tried.
pub const PROTOCOLS: &[&str] = &[
    "resp",
    "resp3",
    "memcache",
    "memcache-meta",
    "http1",
    "http2",
    "echo",
    "kafka",
    "nats",
    "stream",
    "beanstalk",
];
/// Ports after the first that a server may use.
pub(super) const PORTS_AFTER: u16 = 6;
/// Placeholders, beside those of ports.
pub(super) const WORDS: &[&str] = &["port", "admin", "shards", "cpus", "threads", "data", "buffer"];
const READY_S: u64 = 10;
const READY_S_MAX: u64 = 300;
/// No server starts within less.
const MEMORY_MB_MIN: u64 = 16;

/// Where a server's program is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Program {
    /// On PATH, or at this path.
    Path(Cow<'static, str>),
    /// Beside this program.
    Sibling(Cow<'static, str>),
    /// Below `clients/` next to the directory of this program, where install scripts put what they fetch.
    Fetched(Cow<'static, str>),
    /// This program.
    Own,
}

impl Program {
    /// Its path, or its name where it is on no path.
    ///
    /// # Errors
    /// The path of this program cannot be told.
    pub(crate) fn path(&self) -> Result<String> {
        let own = std::env::current_exe().context("the path of this program")?;
        let path = match self {
            Self::Path(name) => match process::find(name) {
                Some(path) => path,
                None => return Ok(name.clone().into_owned()),
            },
            Self::Own => own,
            Self::Sibling(name) => own.with_file_name(&**name),
            Self::Fetched(name) => own.with_file_name("../clients").join(&**name),
        };
        Ok(path.to_string_lossy().into_owned())
    }
}

/// A server that can be compared, as the registry describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Its name on the command line and in reports.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What it speaks, the first where nothing else is asked for; of [`PROTOCOLS`].
    pub protocols: Vec<String>,
    /// Which port after the first a protocol is spoken on.
    #[serde(default)]
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) program: Program,
    /// The package of Debian that has the program.
    #[serde(default)]
    pub debian: Option<String>,
    /// How to get it otherwise.
    #[serde(default)]
    pub get: Option<String>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Files that are in its directory when it starts.
    #[serde(default)]
    pub(super) files: BTreeMap<String, String>,
    pub(super) ready: Ready,
    /// How long it may take until it is.
    #[serde(default = "ready_s")]
    pub(super) ready_s: u64,
    /// What it is asked for its version.
    #[serde(default)]
    pub(super) version: Ask,
    /// A package of this program instead, whose version is that of the server.
    #[serde(default)]
    pub(super) package: Option<String>,
    /// What it is asked for how it was built.
    #[serde(default)]
    pub(super) build: Option<Ask>,
    /// Whether all its threads stay on the CPUs of the servers.
    #[serde(default = "yes")]
    pub pin: bool,
    /// The most it may map (`RLIMIT_AS`).
    #[serde(default)]
    pub memory_mb: Option<u64>,
    /// What a reader of its figures should know.
    #[serde(default)]
    pub notes: Option<String>,
}

const fn ready_s() -> u64 {
    READY_S
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    peer: Vec<Peer>,
}

/// The servers that come with this program, with those of `more`.
///
/// # Errors
/// `more` cannot be read or is not valid.
pub(super) fn read(more: Option<&Path>) -> Result<Vec<Peer>> {
    let mut peers = parse(BUILT_IN).context("peers.toml of this program")?;
    if let Some(path) = more {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        for peer in parse(&text).with_context(|| shown.to_string())? {
            match peers.iter_mut().find(|other| other.name == peer.name) {
                Some(other) => *other = peer,
                None => peers.push(peer),
            }
        }
    }
    Ok(peers)
}

/// The servers of one file.
///
/// # Errors
/// The text says what is wrong with it, and where.
pub(super) fn parse(text: &str) -> Result<Vec<Peer>> {
    let registry: Registry = toml::from_str(text)?;
    let mut names = BTreeSet::new();
    for peer in &registry.peer {
        peer.check().with_context(|| format!("peer {:?}", peer.name))?;
        ensure!(names.insert(&peer.name), "peer {:?} is there twice", peer.name);
    }
    Ok(registry.peer)
}

impl Peer {
    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        ensure!(
            !self.name.is_empty() && self.name.chars().all(plain),
            "name: lower case letters, digits, and any of -._"
        );
        ensure!(!self.protocols.is_empty(), "protocols: it speaks at least one");
        for protocol in &self.protocols {
            ensure!(
                PROTOCOLS.contains(&protocol.as_str()),
                "protocols: {protocol:?} is none of {}",
                PROTOCOLS.join(", ")
            );
        }
        for (protocol, after) in &self.ports {
            ensure!(self.protocols.contains(protocol), "ports: it does not speak {protocol:?}");
            ensure!(
                *after <= PORTS_AFTER,
                "ports: {protocol} = {after} is more than {PORTS_AFTER}"
            );
        }
        ensure!(
            (1..=READY_S_MAX).contains(&self.ready_s),
            "ready-s: from 1 to {READY_S_MAX} seconds, not {}",
            self.ready_s
        );
        if let Some(mb) = self.memory_mb {
            ensure!(mb >= MEMORY_MB_MIN, "memory-mb: at least {MEMORY_MB_MIN}, not {mb}");
        }
        for name in self.files.keys() {
            let inside =
                Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(inside && !name.is_empty(), "files: {name:?} is not below the data directory");
        }
        self.ready.check().context("ready")?;
        let texts = self.args.iter().chain(self.env.values()).chain(self.files.values());
        texts.into_iter().try_for_each(|text| check_placeholders(text))
    }

    /// Whether it is built from this source tree, so that a change of the tree changes it.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self.program, Program::Own | Program::Sibling(_))
    }

    /// Whether it speaks `protocol`.
    #[must_use]
    pub fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|name| name == protocol)
    }
}

/// Calls `found` with each `{word}` of `text`, and `other` with what is between them.
pub(super) fn placeholders<'a>(
    text: &'a str,
    mut other: impl FnMut(&'a str),
    mut found: impl FnMut(&'a str),
) {
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '+';
        let len = after.find(|c| !is_word(c)).unwrap_or(after.len());
        if len > 0 && after[len..].starts_with('}') {
            other(&rest[..open]);
            found(&after[..len]);
            rest = &after[len + 1..];
        } else {
            // A brace of the text's own.
            other(&rest[..=open]);
            rest = after;
        }
    }
    other(rest);
}

/// How far `{port+N}` is after the first port.
pub(super) fn port_after(word: &str) -> Option<u16> {
    let after = word.strip_prefix("port+")?.parse().ok()?;
    (1..=PORTS_AFTER).contains(&after).then_some(after)
}

fn check_placeholders(text: &str) -> Result<()> {
    let mut unknown = None;
    placeholders(
        text,
        |_| {},
        |word| {
            if !WORDS.contains(&word) && port_after(word).is_none() {
                unknown.get_or_insert(word);
            }
        },
    );
    match unknown {
        Some(word) => bail!(
            "{{{word}}} is no placeholder; there are {{port+1}} to {{port+{PORTS_AFTER}}} and {{{}}}",
            WORDS.join("}, {")
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[[peer]]\nname = 'x'\nabout = 'a test'\nprotocols = ['http1']\n\
        program = { path = 'x' }\nready = 'tcp'\n";

    fn refused(text: &str) -> String {
        format!("{:#}", parse(text).expect_err("it is wrong"))
    }

    #[test]
    fn a_small_entry_has_defaults() {
        let peers = parse(SMALL).expect("valid");
        let peer = &peers[0];
        assert!(peer.pin && peer.ready_s == READY_S && peer.speaks("http1"));
        assert_eq!(peer.program, Program::Path("x".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            ("args = ['--port', '{prot}']\n", "{prot} is no placeholder"),
            ("args = ['{port+7}']\n", "{port+7} is no placeholder"),
            ("ports = { http2 = 1 }\n", "does not speak \"http2\""),
            ("ports = { http1 = 9 }\n", "more than 6"),
            ("ready-s = 0\n", "from 1 to 300"),
            ("memory-mb = 1\n", "at least 16"),
            ("files = { '../x' = '' }\n", "not below"),
            ("files = { '/etc/x' = '' }\n", "not below"),
            ("shell = 'rm'\n", "unknown field"),
        ] {
            let error = refused(&format!("{SMALL}{more}"));
            assert!(error.contains(expected), "{more}: {error}");
        }
        assert!(refused(&SMALL.replace("http1", "telnet")).contains("none of resp, "));
        assert!(refused(&SMALL.replace("'x'\nabout", "'X y'\nabout")).contains("name: "));
        assert!(refused(&format!("{SMALL}{SMALL}")).contains("twice"));
        let wrong = "ready = { http = { path = 'x' } }";
        assert!(refused(&SMALL.replace("ready = 'tcp'", wrong)).contains("begins with /"));
    }

    #[test]
    fn braces_of_the_text_stay() {
        let (mut words, mut text) = (Vec::new(), String::new());
        let source = "a { b } {port}{port+2} {} {x";
        placeholders(source, |part| text.push_str(part), |word| words.push(word));
        assert_eq!(words, ["port", "port+2"]);
        assert_eq!(text, "a { b }  {} {x");
    }

    #[test]
    fn a_file_adds_and_replaces() {
        let path = std::env::temp_dir().join(format!("bench-peers-{}.toml", std::process::id()));
        let second = SMALL.replace("'x'\nabout = 'a test'", "'redis'\nabout = 'another'");
        std::fs::write(&path, format!("{SMALL}{second}")).expect("writable");
        let peers = read(Some(&path)).expect("valid");
        std::fs::remove_file(&path).expect("ours");
        let built_in = read(None).expect("valid");
        assert_eq!(peers.len(), built_in.len() + 1);
        let redis = peers.iter().find(|peer| peer.name == "redis").expect("replaced");
        assert_eq!(redis.about, "another");
        let error = read(Some(Path::new("/no/such/file"))).expect_err("it is not there");
        assert!(format!("{error:#}").contains("/no/such/file"), "{error:#}");
    }
}
