//! A peer's server: its command and files filled in, started, and waited for until it is ready.
//!
//! Invariants: each has a directory of its own, which goes with it; one that is not ready in time
//! is ended, and the error shows its last words. Next: `process` for the rest of its life.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use super::registry::{self, Peer, Program};
use super::{Place, probe};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::load::protocol::Protocol;
use crate::process::{self, CommandLine, Launch, Server};

/// Between two questions whether it is ready.
const ASK_NS: u64 = 5 * MILLISECOND_NS;

impl Place {
    /// `text` with its placeholders filled; `data` is the server's directory.
    fn fill(&self, text: &str, data: &Path) -> String {
        let filled = std::cell::RefCell::new(String::with_capacity(text.len()));
        let cpus = || self.cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let word = |word: &str| match word {
            "port" => self.port.to_string(),
            "admin" => self.admin.to_string(),
            "shards" => self.shards.to_string(),
            "cpus" => cpus(),
            "threads" => self.cpus.len().max(1).to_string(),
            "data" => data.to_string_lossy().into_owned(),
            "buffer" => self.read_buffer.to_string(),
            other => match registry::port_after(other) {
                Some(after) => self.port.saturating_add(after).to_string(),
                // The registry was checked: this cannot be one of its placeholders.
                None => format!("{{{other}}}"),
            },
        };
        registry::placeholders(
            text,
            |part| filled.borrow_mut().push_str(part),
            |name| filled.borrow_mut().push_str(&word(name)),
        );
        filled.into_inner()
    }
}

impl Peer {
    /// What the load may ask of it where nothing else is said.
    ///
    /// # Errors
    /// The load does not speak what it speaks.
    pub fn protocol(&self) -> Result<Protocol> {
        let first = self.protocols.iter().find_map(|name| probe::of_load(name));
        first.with_context(|| {
            format!("{} speaks {}, which the load does not", self.name, self.protocols.join(", "))
        })
    }

    /// Where it speaks `protocol` when it runs at `place`.
    #[must_use]
    pub fn addr(&self, place: &Place, protocol: &str) -> SocketAddr {
        let after = self.ports.get(protocol).copied().unwrap_or(0);
        SocketAddr::from(([127, 0, 0, 1], place.port.saturating_add(after)))
    }

    /// The path of its program.
    ///
    /// # Errors
    /// It is not there; the text says how to get it.
    pub fn program(&self) -> Result<String> {
        let path = self.program.path()?;
        if process::find(&path).is_some() {
            return Ok(path);
        }
        let name = match &self.program {
            Program::Path(name) | Program::Sibling(name) | Program::Fetched(name) => name,
            Program::Own => "this program",
        };
        let how = match (&self.debian, &self.get) {
            (Some(package), _) => format!(" (Debian: apt install {package})"),
            (None, Some(how)) => format!(" ({how})"),
            (None, None) => String::new(),
        };
        bail!("{name} is not installed{how}")
    }

    /// What its program says of its version.
    ///
    /// # Errors
    /// It is not there; the text says what is missing.
    pub fn version(&self) -> Result<String> {
        let program = self.program()?;
        match &self.package {
            Some(package) => Ok(super::built_with(package)),
            None => self.version.ask(&program),
        }
    }

    /// What its program says of how it was built, where the registry knows how to ask.
    #[must_use]
    pub fn build(&self) -> Option<String> {
        let ask = self.build.as_ref()?;
        ask.ask(&self.program().ok()?).ok()
    }

    /// The command that starts it, with `data` as its directory.
    ///
    /// # Errors
    /// Its program is not there.
    pub fn command(&self, place: &Place, data: &Path) -> Result<CommandLine> {
        Ok(CommandLine {
            program: self.program()?,
            args: self.args.iter().map(|arg| place.fill(arg, data)).collect(),
        })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It is missing, ends at once, or is not ready in time.
    pub fn start(&self, place: &Place) -> Result<Server> {
        let data = data_dir();
        let command = self.command(place, &data)?;
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        if let Err(error) = self.write_files(place, &data) {
            // The first error is the one to show.
            let _ = fs::remove_dir_all(&data);
            return Err(error);
        }
        let env = |(name, value): (&String, &String)| (name.clone(), place.fill(value, &data));
        let mut server = Server::launch(Launch {
            env: self.env.iter().map(env).collect(),
            cpus: self.pin.then(|| place.cpus.clone()),
            own_cpu: place.client_cpu,
            data: Some(data.clone()),
            memory_bytes: self.memory_mb.map(|mb| mb << 20),
            command: command.clone(),
        })?;
        self.wait(place, &command, &mut server)?;
        if place.fifo {
            process::make_fifo(server.pid())?;
        }
        Ok(server)
    }

    fn write_files(&self, place: &Place, data: &Path) -> Result<()> {
        for (name, text) in &self.files {
            let path = data.join(name);
            let shown = || format!("write {}", path.display());
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).with_context(shown)?;
            }
            fs::write(&path, place.fill(text, data)).with_context(shown)?;
        }
        Ok(())
    }

    fn wait(&self, place: &Place, command: &CommandLine, server: &mut Server) -> Result<()> {
        let deadline_ns = clock::mono_ns() + self.ready_s * SECOND_NS;
        loop {
            if let Some(end) = server.ended() {
                bail!("{command} ended: {end}");
            }
            match self.ready.ask(place.addr()) {
                Ok(()) => return Ok(()),
                Err(error) if clock::mono_ns() > deadline_ns => {
                    let words = server.last_words();
                    let why = format!("{command} is not ready after {} s: {words}", self.ready_s);
                    return Err(error.context(why));
                }
                Err(_) => clock::sleep_ns(ASK_NS),
            }
        }
    }
}

/// A name of its own for each server's directory.
fn data_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("bench-data-{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::tests::place;

    #[test]
    fn every_template_is_filled() {
        let data = Path::new("/nowhere/data");
        for peer in crate::peers::all() {
            let args = peer.args.iter().chain(peer.env.values()).chain(peer.files.values());
            let text: String = args.map(|text| place().fill(text, data) + "\n").collect();
            assert!(text.contains("22900"), "{text}");
            for word in registry::WORDS {
                assert!(!text.contains(&format!("{{{word}")), "{text}");
            }
        }
        let text = place().fill("{port}/{port+1}/{admin}/{cpus}/{threads}/{data}/{shards}", data);
        assert_eq!(text, "22900/22901/22907/0,1/2//nowhere/data/2");
    }

    fn peer(script: &str, more: &str) -> Peer {
        let text = format!(
            "[[peer]]\nname = 'test'\nabout = 'a test'\nprotocols = ['http1']\n\
             program = {{ path = 'sh' }}\nargs = ['-c', '''{script}''']\nready = 'tcp'\n{more}"
        );
        registry::parse(&text).expect("valid").remove(0)
    }

    fn dirs() -> usize {
        let prefix = format!("bench-data-{}-", std::process::id());
        let entries = fs::read_dir(std::env::temp_dir()).expect("a directory for such files");
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .count()
    }

    #[test]
    fn one_that_does_not_start_says_why_and_leaves_nothing() {
        let script = "cat {data}/sub/greeting; echo; echo $PLACE; exit 7";
        let more = "env = { PLACE = '{port}' }\n[peer.files]\n'sub/greeting' = 'hello {shards}'\n";
        let error = peer(script, more).start(&place()).expect_err("it ends");
        let error = format!("{error:#}");
        assert!(error.contains("exit status: 7: hello 2 | 22900"), "{error}");
        let never = peer("echo starting; exec sleep 60", "ready-s = 1\n");
        let error = format!("{:#}", never.start(&place()).expect_err("it never listens"));
        assert!(error.contains("not ready after 1 s: starting"), "{error}");
        assert_eq!(dirs(), 0);
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let mut missing = peer("", "debian = 'nothing-at-all'\n");
        missing.program = Program::Path("no-such-program".into());
        let error = missing.start(&place()).expect_err("it is missing").to_string();
        assert_eq!(error, "no-such-program is not installed (Debian: apt install nothing-at-all)");
        assert_eq!(missing.version().expect_err("it is missing").to_string(), error);
        missing.debian = None;
        missing.get = Some("cargo build".to_owned());
        assert!(missing.program().expect_err("missing").to_string().ends_with("(cargo build)"));
    }
}
