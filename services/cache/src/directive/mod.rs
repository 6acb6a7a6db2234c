//! Directives of redis-server, as flags and in a redis.conf: what each of them does here.
//!
//! The names, types and defaults are those of [`crate::settings`], so that CONFIG GET shows what was given and CONFIG SET
//! takes the same values; [`AT_START`] says what else a directive does before the shards start. One that asks for
//! something this server has not got is an error that says what to do; one that only changes how redis-server works inside
//! is kept and has no effect. Invariant: the last one given wins, flags over standard input over the file; a directive of
//! several values is kept as one text. Next: `line` for how they are read, [`crate::config`] for who uses them.

mod greet;
mod line;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use engine::config::Table;
use engine::error::Error;

use crate::settings::{self, Kind};
pub use greet::Greeting;
pub(crate) use line::split_words;
use line::{Directive, Known, Line, wrong};

/// What a directive does at start beside being kept.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// An option of ours or the engine's gets its value, with this unit behind it.
    Option(&'static str, &'static str),
    /// As above, after translation.
    LogLevel,
    /// Read by [`crate::config`].
    Start,
    /// Nothing changes, which is said when it is given.
    Ignored(&'static str),
    /// Not yet in force, which is said when it is switched on.
    NotInForce(&'static str),
    /// Refused unless it has its default value: what to do instead.
    Lacks(&'static str),
}

/// What directives do at start, and the types of those that cannot be changed later. All others are as CONFIG SET has them.
static AT_START: &[(&str, Kind, Effect)] = &[
    ("aclfile", Kind::Text, Effect::Start),
    (
        "activedefrag",
        Kind::Bool,
        Effect::Ignored("records are moved together whenever that gains memory"),
    ),
    ("appenddirname", Kind::Text, Effect::Start),
    ("appendonly", Kind::Bool, Effect::Start),
    ("bind", Kind::Text, Effect::Start),
    ("cluster-enabled", Kind::Bool, Effect::Start),
    ("cluster-port", Kind::Int(0, 65_535), Effect::Lacks("leave it out: shards need no bus")),
    ("daemonize", Kind::Bool, Effect::Lacks("give `no`, and start it by systemd, or with `&`")),
    ("databases", Kind::Int(1, 1024), Effect::Option("databases", "")),
    ("io-threads", Kind::Int(1, 128), Effect::Ignored("every shard is a thread: see --shards")),
    ("io-threads-do-reads", Kind::Bool, Effect::Ignored("every shard reads its connections")),
    ("logfile", Kind::Text, Effect::Start),
    ("loglevel", Kind::Word(settings::LOG_LEVELS), Effect::LogLevel),
    ("maxclients", Kind::Int(1, u32::MAX as i64), Effect::Option("max-clients", "")),
    ("maxmemory", Kind::Memory(0, 1 << 50), Effect::Option("maxmemory", "")),
    ("maxmemory-policy", Kind::Word(settings::POLICIES), Effect::Option("maxmemory-policy", "")),
    ("maxmemory-samples", Kind::Int(1, 64), Effect::Option("maxmemory-samples", "")),
    ("pidfile", Kind::Text, Effect::Start),
    ("port", Kind::Int(0, 65_535), Effect::Start),
    ("replicaof", Kind::Text, Effect::Option("replicaof", "")),
    ("requirepass", Kind::Text, Effect::Option("requirepass", "")),
    ("save", Kind::Save, Effect::Start),
    ("socket-mark-id", Kind::Int(0, u32::MAX as i64), Effect::Lacks("leave it out")),
    (
        "supervised",
        Kind::Word(&["upstart", "systemd", "auto", "no"]),
        Effect::Ignored("nothing is reported to a supervisor: use Type=exec"),
    ),
    ("syslog-enabled", Kind::Bool, Effect::Lacks("give `no`, and log to a file or to the journal")),
    ("tcp-backlog", Kind::Int(0, 65_535), Effect::Option("backlog", "")),
    ("tcp-keepalive", Kind::Int(0, 86_400), Effect::Option("keepalive", "s")),
    ("timeout", Kind::Int(0, 31_536_000), Effect::Option("idle-timeout", "s")),
    ("tls-auth-clients", Kind::Word(&["no", "yes", "optional"]), Effect::Start),
    ("tls-ca-cert-dir", Kind::Text, Effect::Lacks("put the authorities in one tls-ca-cert-file")),
    ("tls-ca-cert-file", Kind::Text, Effect::Start),
    ("tls-cert-file", Kind::Text, Effect::Start),
    (
        "tls-ciphers",
        Kind::Text,
        Effect::Lacks("leave it out: the ciphers of rustls are all safe ones"),
    ),
    (
        "tls-ciphersuites",
        Kind::Text,
        Effect::Lacks("leave it out: the ciphers of rustls are all safe ones"),
    ),
    ("tls-cluster", Kind::Bool, Effect::Lacks("leave it out: shards need no bus")),
    ("tls-dh-params-file", Kind::Text, Effect::Ignored("rustls agrees on keys by curves only")),
    ("tls-key-file", Kind::Text, Effect::Start),
    (
        "tls-key-file-pass",
        Kind::Text,
        Effect::Lacks("take the password off: openssl pkey -in KEY -out PLAIN_KEY"),
    ),
    ("tls-port", Kind::Int(0, 65_535), Effect::Start),
    ("tls-protocols", Kind::Text, Effect::Ignored("TLS 1.2 and 1.3 are served")),
    ("tls-replication", Kind::Bool, Effect::NotInForce("the link to a master is not encrypted")),
    ("unixsocket", Kind::Text, Effect::Start),
    ("unixsocketperm", Kind::Text, Effect::Start),
];

/// Directives that are no parameters: what to do instead.
const NO_PARAMETERS: [(&str, &str); 3] = [
    ("loadmodule", "leave it out: there are no modules"),
    ("rename-command", "give users the commands they may run: `user NAME … -COMMAND`"),
    ("sentinel", "run redis-sentinel itself"),
];

/// Those that take more than one value.
const SEVERAL: [&str; 8] = [
    "bind",
    "client-output-buffer-limit",
    "latency-tracking-info-percentiles",
    "oom-score-adj-values",
    "replicaof",
    "save",
    "shutdown-on-sigint",
    "shutdown-on-sigterm",
];

/// What was asked for by directives, checked.
#[derive(Clone, Debug, Default)]
pub struct Directives {
    settings: BTreeMap<&'static str, String>,
    /// The rules of `user` lines: the name first.
    pub users: Vec<Vec<String>>,
    /// The redis.conf, absolute.
    pub file: Option<PathBuf>,
    /// What to say at start.
    pub notes: Vec<String>,
    /// Arguments for the table of our own options.
    pub own: Vec<OsString>,
    /// Started as redis-server would be: it listens where `port` and `bind` say.
    pub is_drop_in: bool,
    /// The version was asked for.
    pub version: bool,
    /// The list of options was asked for.
    pub help: bool,
}

/// Where `bind` says to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address.
    pub ip: IpAddr,
    /// This host need not have it.
    pub optional: bool,
}

impl Directives {
    /// Reads the command line, without the program's name, and the files it names.
    ///
    /// # Errors
    /// For the first directive that is unknown, not allowed, or not to be had here.
    pub fn read(args: Vec<OsString>, table: &Table) -> Result<Self, Error> {
        let line = Line::read(args, |name| known(table, name))?;
        let mut all = Vec::new();
        if let Some(path) = &line.file {
            line::read_file(path, 0, &mut all)?;
        }
        if line.stdin {
            line::read_stdin(&mut all)?;
        }
        all.extend(line.directives);
        let names_own_address = line
            .own
            .iter()
            .any(|arg| arg == "--cache" || arg.to_string_lossy().starts_with("--cache="));
        let only_here = |directive: &Directive| !known_as_option(table, &directive.name);
        let mut directives = Self {
            file: line.file.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.into())),
            version: line.version,
            help: line.help,
            is_drop_in: !names_own_address
                && (line.file.is_some() || line.stdin || all.iter().any(only_here)),
            ..Self::default()
        };
        for directive in all {
            directives.take(directive)?;
        }
        directives.derive()?;
        if names_own_address
            && let Some(name) =
                ["port", "bind"].iter().find(|name| directives.settings.contains_key(**name))
        {
            return Err(wrong(format!("--cache and {name}: two places to listen"), "give one"));
        }
        if directives.is_drop_in && !given(&line.own, "admin") {
            directives.own.extend(["--admin".into(), "off".into()]);
        }
        if line.help {
            directives.own.push("--help".into());
        }
        directives.own.extend(line.own);
        Ok(directives)
    }

    fn take(&mut self, directive: Directive) -> Result<(), Error> {
        let Directive { name, values, place } = directive;
        if name == "user" {
            if values.is_empty() {
                return Err(wrong(format!("{place}: no name"), "give `user NAME RULE …`"));
            }
            self.users.push(values);
            return Ok(());
        }
        let name = current_name(&name);
        if let Some((_, remedy)) = NO_PARAMETERS.iter().find(|(other, _)| *other == name) {
            return Err(wrong(format!("{place}: `{name}` is not supported here"), remedy));
        }
        let Some((name, kind, default)) = settings::parameter(&name) else {
            return Err(wrong(format!("{place}: no such directive: `{name}`"), "leave it out"));
        };
        if values.len() != 1 && (values.is_empty() || !SEVERAL.contains(&name)) {
            let problem = format!("{place}: {} values for `{name}`", values.len());
            return Err(wrong(problem, "give one, in quotes if it has blanks"));
        }
        let start = AT_START.iter().find(|(other, ..)| *other == name);
        let kind = start.map_or(kind, |(_, kind, _)| *kind);
        let mut text = values.join(" ");
        if name == "save"
            && !text.is_empty()
            && let Some(before) = self.settings.get(name).filter(|before| !before.is_empty())
        {
            text = format!("{before} {text}");
        }
        let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
        let text = settings::check_at_start(name, kind, text)
            .map_err(|why| wrong(format!("{place}: `{name} {shown}`: {why}"), "correct it"))?;
        if let Some((.., Effect::Lacks(remedy))) = start
            && text != default
        {
            return Err(wrong(format!("{place}: `{name} {shown}` is not supported here"), remedy));
        }
        self.settings.insert(name, text);
        Ok(())
    }

    /// Fills the options and the notes that follow.
    fn derive(&mut self) -> Result<(), Error> {
        for &(name, _, effect) in AT_START {
            let Some(text) = self.settings.get(name) else { continue };
            match effect {
                // Off, for a text that may be.
                Effect::Option("requirepass" | "replicaof", _) if text.is_empty() => {}
                Effect::Option(option, unit) => {
                    self.own.push(format!("--{option}={text}{unit}").into());
                }
                Effect::LogLevel => {
                    let level = match text.as_str() {
                        "warning" => "warn",
                        "notice" => "info",
                        _ => "debug",
                    };
                    self.own.push(format!("--log-level={level}").into());
                }
                Effect::Ignored(why) if !is_off(text) => {
                    self.notes.push(format!("{name} {text}: without effect: {why}"));
                }
                Effect::NotInForce(why) if !is_off(text) => {
                    self.notes.push(format!("{name} {text}: NOT IN EFFECT: {why}"));
                }
                _ => {}
            }
        }
        self.tls_is_whole()?;
        if self.is_drop_in
            && self.port() == 0
            && self.get("unixsocket").is_empty()
            && self.tls_port() == 0
        {
            return Err(wrong(
                "--port 0: configured to listen nowhere",
                "give a port, a tls-port or a unixsocket",
            ));
        }
        self.bind().map(drop)?;
        self.unix_permissions().map(drop)
    }

    fn tls_is_whole(&self) -> Result<(), Error> {
        if self.tls_port() == 0 {
            return Ok(());
        }
        for name in ["tls-cert-file", "tls-key-file"] {
            if self.get(name).is_empty() {
                return Err(wrong(format!("tls-port: no {name}"), "name the file, in PEM form"));
            }
        }
        if self.get("tls-auth-clients") != "no" && self.get("tls-ca-cert-file").is_empty() {
            return Err(wrong(
                "tls-port: no tls-ca-cert-file to check clients by",
                "name the file, or give `tls-auth-clients no`",
            ));
        }
        Ok(())
    }

    /// A directive's value, or its default.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        match self.settings.get(name) {
            Some(text) => text,
            None => settings::parameter(name).map_or("", |(_, _, default)| default),
        }
    }

    /// What was given, in the words of CONFIG GET.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.settings.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// The port for plain connections; 0 for none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.get("port").parse().unwrap_or(0)
    }

    /// The port for TLS; 0 for none.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.get("tls-port").parse().unwrap_or(0)
    }

    /// Mode of the Unix socket.
    ///
    /// # Errors
    /// It is no octal number.
    pub fn unix_permissions(&self) -> Result<Option<u32>, Error> {
        let text = self.get("unixsocketperm");
        match u32::from_str_radix(text, 8) {
            Ok(0) => Ok(None),
            Ok(mode @ 1..=0o777) => Ok(Some(mode)),
            _ => Err(wrong(format!("unixsocketperm {text}: no mode"), "give it in octal: 770")),
        }
    }

    /// The addresses to listen on: without `bind`, this host's loopback.
    ///
    /// # Errors
    /// One of them is none.
    pub fn bind(&self) -> Result<Vec<Bind>, Error> {
        let Some(text) = self.settings.get("bind") else {
            let loopback = |ip, optional| Bind { ip, optional };
            return Ok(vec![
                loopback(Ipv4Addr::LOCALHOST.into(), false),
                loopback(Ipv6Addr::LOCALHOST.into(), true),
            ]);
        };
        let mut binds = Vec::new();
        for word in text.split_ascii_whitespace() {
            let optional = word.starts_with('-');
            let ip = match word.trim_start_matches('-') {
                "*" => Ipv4Addr::UNSPECIFIED.into(),
                "::*" => Ipv6Addr::UNSPECIFIED.into(),
                "localhost" => Ipv4Addr::LOCALHOST.into(),
                address => address.parse().map_err(|_| {
                    wrong(
                        format!("bind {word}: no address"),
                        "give addresses such as 127.0.0.1 or ::1",
                    )
                })?,
            };
            binds.push(Bind { ip, optional });
        }
        Ok(binds)
    }
}

/// The directives that do more at start than to be kept, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "\nAs redis-server: a redis.conf as the first argument, `-` for standard input, and directives as\n\
         flags, each with its values (--save \"\", --bind 127.0.0.1 ::1). CONFIG GET shows all of them.\n",
    );
    for (name, _, effect) in AT_START {
        let what = match effect {
            Effect::Option(option, _) => format!("as --{option}"),
            Effect::LogLevel => "as --log-level".into(),
            Effect::Start => "as in redis-server".into(),
            Effect::Ignored(why) => format!("without effect: {why}"),
            Effect::NotInForce(why) => format!("not in effect: {why}"),
            Effect::Lacks(remedy) => format!("not supported: {remedy}"),
        };
        text.push_str(&format!("  --{name}\n        {what}\n"));
    }
    text
}

/// Whether a value says that something is not wanted.
fn is_off(text: &str) -> bool {
    matches!(text, "" | "no" | "0" | "1")
}

fn given(own: &[OsString], name: &str) -> bool {
    own.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        let arg = arg.strip_prefix("--").unwrap_or_default();
        arg.split('=').next() == Some(name)
    })
}

fn known_as_option(table: &Table, name: &str) -> bool {
    table.rows().any(|row| row.name == name)
}

fn known(table: &Table, name: &str) -> Known {
    let lower = name.to_ascii_lowercase();
    if lower == "user" || lower == "include" || is_directive(&lower) {
        return Known::Directive;
    }
    let is_flag = |row: &engine::config::Row| matches!(row.kind, engine::config::Kind::Bool);
    match table.rows().find(|row| row.name == name) {
        Some(row) if is_flag(row) => Known::OwnFlag,
        Some(_) => Known::Own,
        None => {
            let positive = name.strip_prefix("no-").unwrap_or_default();
            let negated = table.rows().any(|row| row.name == positive && is_flag(row));
            if negated { Known::OwnFlag } else { Known::Nobody }
        }
    }
}

fn is_directive(name: &str) -> bool {
    settings::parameter(&current_name(name)).is_some()
        || NO_PARAMETERS.iter().any(|(other, _)| *other == name)
}

/// What older files call a directive, under its present name.
fn current_name(name: &str) -> String {
    match name {
        "slaveof" => "replicaof".into(),
        "min-slaves-to-write" | "min-slaves-max-lag" => name.replace("slaves", "replicas"),
        "repl-ping-slave-period" => "repl-ping-replica-period".into(),
        _ if name.starts_with("slave-") || name.starts_with("cluster-slave-") => {
            name.replace("slave", "replica")
        }
        _ => name.into(),
    }
}
