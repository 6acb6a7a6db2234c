//! The process that serves a directory: `chaos disk-server`, told what to do by lines on its input.
//!
//! The first line is the [`Order`]; then come words, each answered by a line. It notes in [`registry::DIR`] that it is there, until it ends: which
//! is when nothing of its file system is open any more.

use std::fs;
use std::io::{BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::inner::Inner;
use super::later::Later;
use super::layer::Layer;
use super::nodes::Nodes;
use super::rule::Rule;
use super::unsynced::Unsynced;
use super::{Order, is_ours, mount};
use crate::abi::Counts;
use crate::error::{During as _, Error, Result};
use crate::registry::{self, Process};
use crate::time::monotonic_ns;

/// Threads that receive requests: what takes long waits elsewhere, or for the disk.
const THREADS: usize = 8;
/// Wanted, if the kernel lets us (fs.nr_open).
const DESCRIPTORS: u64 = 1 << 20;

/// Words that a server is told.
pub(crate) const COUNT: &str = "count";
/// To go on until its time is over when its keeper is gone.
pub(crate) const OUTLIVE: &str = "outlive";
/// To end the effect.
pub(crate) const END: &str = "end";

/// What a server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It serves, and counts in these maps of the kernel's.
    Ready(Vec<u32>),
    /// It cannot, and why.
    Refused(String),
    /// So far: seen, matched, chosen, affected.
    Counts([u64; 4]),
}

impl Answer {
    fn counts(of: Counts) -> Self {
        Self::Counts([of.seen, of.matched, of.chosen, of.affected])
    }

    fn say(&self) {
        // Who asked may be gone.
        let _ = serde_json::to_string(self).map(|line| writeln!(std::io::stdout(), "{line}"));
    }
}

/// A server, as it notes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Serving {
    /// Of which fault.
    pub fault: String,
    /// The process.
    pub server: Process,
    /// The directory.
    pub dir: PathBuf,
}

fn note_of(id: &str) -> PathBuf {
    Path::new(registry::DIR).join(format!("{id}.serving"))
}

/// The servers that are there, also those whose fault is over and whose files are still open. What is left of those that were
/// killed is removed.
#[must_use]
pub fn serving() -> Vec<Serving> {
    let notes = fs::read_dir(registry::DIR).into_iter().flatten().flatten().map(|note| note.path());
    let notes = notes.filter(|path| path.extension().is_some_and(|end| end == "serving"));
    notes
        .filter_map(|path| {
            let one: Serving = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            if one.server.is_alive() {
                return Some(one);
            }
            if mount::detach(&one.dir, &one.fault).is_ok() {
                let _ = fs::remove_file(path);
            }
            None
        })
        .collect()
}

/// A line of the input; nothing when it is closed.
fn line(input: &mut impl std::io::BufRead) -> Option<String> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|len| *len > 0).map(|_| line.trim_end().to_owned())
}

/// The body of `chaos disk-server`.
///
/// # Errors
/// What it is told makes no sense, or the kernel refuses: its keeper is told too.
pub fn serve() -> Result<()> {
    let mut input = BufReader::new(std::io::stdin());
    let Some(order) = line(&mut input) else { return Ok(()) };
    let order: Order = serde_json::from_str(&order)
        .map_err(|error| Error::usage(format!("disk-server: no order: {error}")))?;
    let note = note_of(&order.id);
    let served = Server::start(order).and_then(|(mut server, session)| {
        Answer::Ready(server.inner.rule.tally.ids()).say();
        server.work(&mut input)?;
        // Until nothing is open any more, and its keeper knows what it did.
        let told = std::thread::spawn(move || server.tell(&mut input));
        let ended = session.join();
        let _ = told.join();
        ended.map_err(|_| Error::failed("serve: a thread panicked"))?
    });
    let _ = fs::remove_file(note);
    served.inspect_err(|error| Answer::Refused(error.to_string()).say())
}

type Served = std::thread::JoinHandle<Result<()>>;

struct Server {
    inner: Arc<Inner>,
    mount: OwnedFd,
    notifier: Notifier,
    signals: UnixStream,
    /// The pipe to it is open.
    has_keeper: bool,
    /// It goes on without one.
    outlives: bool,
}

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its keeper says so, or its time is over.
    Due,
    /// It is told by a signal, or its keeper is gone.
    Cut,
}

/// As many descriptors as it may have: one for each file that the kernel knows.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let more = limit.maximum.map(|hard| hard.max(DESCRIPTORS));
    // The second takes no right.
    for most in [more, limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_ok() {
            return;
        }
    }
}

impl Server {
    fn start(order: Order) -> Result<(Self, Served)> {
        rustix::process::umask(Mode::empty());
        raise_descriptors();
        let (signals, told) = UnixStream::pair().during(|| "make a pair of sockets".to_owned())?;
        for signal in
            [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP]
        {
            let told = told.try_clone().during(|| "catch signals".to_owned())?;
            signal_hook::low_level::pipe::register(signal, told)
                .during(|| "catch signals".to_owned())?;
        }
        let dir = order.dir.clone();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&dir, flags, Mode::empty())
            .during(|| format!("open {}", dir.display()))?;
        if is_ours(&root) {
            return Err(Error::usage(format!(
                "--path {}: another fault has it; `chaos status` names it",
                dir.display()
            )));
        }
        let id = order.id.clone();
        let doing = || format!("serve {}", dir.display());
        let inner = Arc::new(Inner {
            rule: Rule::new(order),
            nodes: Nodes::new(root).during(doing)?,
            later: Later::start(),
            unsynced: Unsynced::default(),
        });
        let (device, mount) = mount::make(&id)?;
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        let layer = Layer(Arc::clone(&inner));
        let session =
            Session::from_fd(layer, device.into(), SessionACL::All, config).during(doing)?;
        let notifier = session.notifier();
        let session = std::thread::spawn(move || session.run().during(|| "serve".to_owned()));
        note(&id, &dir)?;
        // What is held is the directory, and not where it is.
        let _ = std::env::set_current_dir("/");
        mount::lay(&mount, &dir)?;
        Ok((Self { inner, mount, notifier, signals, has_keeper: true, outlives: false }, session))
    }

    /// Does what it is told until the end of the effect, and ends it.
    fn work(&mut self, input: &mut BufReader<std::io::Stdin>) -> Result<()> {
        let (end, is_told) = self.wait(input)?;
        let ended = self.end(end);
        if is_told {
            self.say_counts();
            self.has_keeper = false;
        }
        ended
    }

    /// Says what it did until its keeper has ended, too.
    fn tell(&self, input: &mut BufReader<std::io::Stdin>) {
        if !self.has_keeper {
            return;
        }
        while let Some(word) = line(input) {
            self.say_counts();
            if word == END {
                return;
            }
        }
    }

    fn say_counts(&self) {
        Answer::counts(self.inner.rule.tally.get()).say();
    }

    /// Waits for the end; whether its keeper tells it, who then waits for an answer.
    fn wait(&mut self, input: &mut BufReader<std::io::Stdin>) -> Result<(End, bool)> {
        loop {
            let left_ns = self.inner.rule.order.deadline_ns.saturating_sub(monotonic_ns());
            if left_ns == 0 {
                return Ok((End::Due, false));
            }
            let left = Timespec::try_from(Duration::from_nanos(left_ns))
                .map_err(|_| Error::failed("wait: too long"))?;
            let stdin = std::io::stdin();
            let mut events = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if self.has_keeper {
                events.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
            match poll(&mut events, Some(&left)) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done.during(|| "wait for what to do".to_owned())?,
            };
            let came = |at: usize| events.get(at).is_some_and(|one| !one.revents().is_empty());
            if came(0) {
                return Ok((End::Cut, false));
            }
            if !came(1) {
                continue;
            }
            match line(input).as_deref() {
                Some(COUNT) => self.say_counts(),
                Some(OUTLIVE) => {
                    self.outlives = true;
                    self.say_counts();
                }
                Some(END) => return Ok((End::Due, true)),
                Some(_) => return Ok((End::Cut, false)),
                None => {
                    self.has_keeper = false;
                    if !self.outlives {
                        return Ok((End::Cut, false));
                    }
                }
            }
        }
    }

    fn end(&self, end: End) -> Result<()> {
        self.inner.rule.end();
        self.inner.later.end();
        if end == End::Due && self.inner.loses() {
            self.inner.lose(None);
        }
        let detached = mount::detach_root(&self.mount);
        // What mappings hold may be what a fault made of it.
        for node in self.inner.nodes.known() {
            let _ = self.notifier.inval_inode(INodeNo(node), 0, 0);
        }
        detached
    }
}

fn note(id: &str, dir: &Path) -> Result<()> {
    let server = Process::find(std::process::id())
        .ok_or_else(|| Error::failed("read /proc/self/stat: /proc is not mounted"))?;
    let one = Serving { fault: id.to_owned(), server, dir: dir.to_owned() };
    let doing = || format!("write {}", note_of(id).display());
    fs::write(note_of(id), serde_json::to_vec(&one).during(doing)?).during(doing)
}
