//! Events: things worth telling an operator, as one line each on standard error.
//!
//! Why: an [`Event`] is declared once, and yields the line, a count for the metrics, and a step of
//! the fingerprint by which two simulated runs are compared. Lines are logfmt:
//! `ts=… level=warn target=shard msg=stall shard=0 ms=7`.
//!
//! Invariants: nothing a peer sends can flood the log: each event has a limit of lines per second,
//! and what was left out is counted on the next line as `suppressed`. A line is one `write`, of
//! [`LINE_MAX_BYTES`] at most, and values are escaped, so nobody can forge a line. Shards never
//! wait for standard error when the log has a [`Writer`]. Time is passed in. Not for the request
//! path: an event takes a lock.
//!
//! Next: `metrics` for what is counted and not told.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use view::Instant;

/// The longest line, its newline included.
pub const LINE_MAX_BYTES: usize = 8 << 10;
/// The longest value in a line, before escapes; longer ones are cut and marked.
pub const VALUE_MAX_BYTES: usize = 1 << 10;
/// Lines per second of events that were not declared.
pub const LINES_PER_S: u32 = 10;
/// Different events that are told apart; all further ones share one limit.
pub const EVENTS_MAX: usize = 256;
/// Lines that may wait for the writer; more are dropped and counted.
const QUEUE_LINES: usize = 1024;

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
}

impl Level {
    /// The words for the levels, in their order.
    pub const WORDS: &'static [&'static str] = &["error", "warn", "info", "debug"];
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// The level of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        let index = Self::WORDS.iter().position(|other| *other == word)?;
        Some(Self::ALL[index])
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// A declared event. Make it a `static`, with a name that does not change: people search for it.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The part of the program: `shard`, `cache`.
    pub target: &'static str,
    /// What happened, in a phrase: lower case, no full stop.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Lines per second at most.
    pub lines_per_s: u32,
}

/// How often an event happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The part of the program.
    pub target: String,
    /// What happened.
    pub name: String,
    /// Times since start, told or not.
    pub total: u64,
}

/// The log. Clones share everything.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    level: AtomicU8,
    sink: Sink,
    /// Lines the writer could not take.
    dropped: AtomicU64,
    state: Mutex<State>,
}

enum Sink {
    /// Written by the caller.
    Stderr,
    /// Written by a thread of its own.
    Writer(SyncSender<Message>),
    /// Kept, for tests and simulations.
    Memory(Mutex<Vec<u8>>),
}

enum Message {
    Line(Vec<u8>),
    Stop,
}

#[derive(Default)]
struct State {
    tallies: BTreeMap<(String, String), Tally>,
    fingerprint: u64,
}

#[derive(Default)]
struct Tally {
    /// The second of the monotonic clock that `lines` counts.
    window_s: u64,
    lines: u32,
    /// Since the last line.
    suppressed: u64,
    total: u64,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("level", &self.level()).finish_non_exhaustive()
    }
}

impl Log {
    /// A log that writes to standard error directly: for commands, and before shards start.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self::with_sink(level, Sink::Stderr)
    }

    /// A log that keeps its lines for [`Log::take`].
    #[must_use]
    pub fn memory(level: Level) -> Self {
        Self::with_sink(level, Sink::Memory(Mutex::default()))
    }

    /// A log with a thread that writes to standard error, so that a full pipe there stops no shard.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(level: Level) -> std::io::Result<(Self, Writer)> {
        Self::start_to(level, std::io::stderr())
    }

    /// The same, writing to a file, or whatever else takes lines.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_to(
        level: Level,
        output: impl std::io::Write + Send + 'static,
    ) -> std::io::Result<(Self, Writer)> {
        let (lines, receiver) = sync_channel(QUEUE_LINES);
        let (ended, end) = sync_channel(1);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_all(&receiver, output);
            // Fails only when nobody waits for it.
            let _ = ended.try_send(());
        })?;
        let log = Self::with_sink(level, Sink::Writer(lines.clone()));
        Ok((log, Writer { lines, end }))
    }

    fn with_sink(level: Level, sink: Sink) -> Self {
        let state = Mutex::default();
        let level = AtomicU8::new(level as u8);
        Self(Arc::new(Shared { level, sink, dropped: AtomicU64::new(0), state }))
    }

    /// The least important level that is written.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.0.level.load(Ordering::Relaxed))]
    }

    /// Writes more or less from now on.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
    }

    /// Tells that `event` happened, with what belongs to it.
    pub fn event(&self, event: &Event, now: Instant, pairs: &[(&str, &dyn Display)]) {
        self.tell(event.level, event.target, event.name, event.lines_per_s, now, pairs);
    }

    /// A line at [`Level::Error`], of an event that is not declared.
    pub fn error(&self, target: &str, now: Instant, name: &str, pairs: &[(&str, &dyn Display)]) {
        self.tell(Level::Error, target, name, LINES_PER_S, now, pairs);
    }

    /// A line at [`Level::Warn`], of an event that is not declared.
    pub fn warn(&self, target: &str, now: Instant, name: &str, pairs: &[(&str, &dyn Display)]) {
        self.tell(Level::Warn, target, name, LINES_PER_S, now, pairs);
    }

    /// A line at [`Level::Info`], of an event that is not declared.
    pub fn info(&self, target: &str, now: Instant, name: &str, pairs: &[(&str, &dyn Display)]) {
        self.tell(Level::Info, target, name, LINES_PER_S, now, pairs);
    }

    /// A line at [`Level::Debug`], of an event that is not declared.
    pub fn debug(&self, target: &str, now: Instant, name: &str, pairs: &[(&str, &dyn Display)]) {
        self.tell(Level::Debug, target, name, LINES_PER_S, now, pairs);
    }

    /// How often each event happened, in the order of their names.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        let state = self.state();
        let counts = state.tallies.iter().map(|((target, name), tally)| Count {
            target: target.clone(),
            name: name.clone(),
            total: tally.total,
        });
        counts.collect()
    }

    /// A number made of all events and their times so far: equal in two runs of one seed.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.state().fingerprint
    }

    /// The lines kept by a log made by [`Log::memory`], which forgets them.
    #[must_use]
    pub fn take(&self) -> String {
        match &self.0.sink {
            Sink::Memory(lines) => {
                String::from_utf8_lossy(&std::mem::take(&mut *lock(lines))).into()
            }
            _ => String::new(),
        }
    }

    /// Lines lost because standard error was not read.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn tell(
        &self,
        level: Level,
        target: &str,
        name: &str,
        lines_per_s: u32,
        now: Instant,
        pairs: &[(&str, &dyn Display)],
    ) {
        let shown = level <= self.level();
        let Some(suppressed) = self.state().note(target, name, lines_per_s, now, shown) else {
            return;
        };
        let mut line = Line::new(now, level, target, name);
        for (key, value) in pairs {
            line.pair(key, *value);
        }
        if suppressed > 0 {
            line.pair("suppressed", &suppressed);
        }
        self.write(line.finish());
    }

    fn write(&self, line: Vec<u8>) {
        let line = match &self.0.sink {
            Sink::Stderr => line,
            Sink::Memory(lines) => return lock(lines).extend_from_slice(&line),
            Sink::Writer(lines) => match lines.try_send(Message::Line(line)) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    self.0.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // The writer has stopped, the process is about to.
                Err(TrySendError::Disconnected(Message::Line(line))) => line,
                Err(TrySendError::Disconnected(Message::Stop)) => return,
            },
        };
        // Nothing can be done about a closed standard error.
        let _ = std::io::stderr().write_all(&line);
    }
}

impl State {
    /// Counts an event. How many lines were left out since the last one, if it is to be told.
    fn note(
        &mut self,
        target: &str,
        name: &str,
        lines_per_s: u32,
        now: Instant,
        shown: bool,
    ) -> Option<u64> {
        self.fingerprint = fold(self.fingerprint, target, name, now);
        let mut key = (target.to_owned(), name.to_owned());
        if self.tallies.len() >= EVENTS_MAX && !self.tallies.contains_key(&key) {
            key = ("other".to_owned(), "other".to_owned());
        }
        let tally = self.tallies.entry(key).or_default();
        tally.total += 1;
        if !shown {
            return None;
        }
        let second = now.mono_ns / 1_000_000_000;
        // Shards differ by a little; the window never runs backwards.
        if second > tally.window_s {
            (tally.window_s, tally.lines) = (second, 0);
        }
        if tally.lines >= lines_per_s {
            tally.suppressed += 1;
            return None;
        }
        tally.lines += 1;
        Some(std::mem::take(&mut tally.suppressed))
    }
}

/// The thread that writes the lines of a [`Log`]; dropping it writes what waits, for a second.
#[derive(Debug)]
pub struct Writer {
    lines: SyncSender<Message>,
    end: Receiver<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A full queue means that nobody reads standard error: do not wait for that.
        if self.lines.try_send(Message::Stop).is_ok() {
            let _ = self.end.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn write_all(lines: &Receiver<Message>, mut output: impl std::io::Write) {
    while let Ok(Message::Line(line)) = lines.recv() {
        // Nothing can be done about a closed standard error.
        let _ = output.write_all(&line);
    }
    let _ = output.flush();
}

/// What a panic left is a count too few: go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// FNV-1a over the parts.
fn fold(fingerprint: u64, target: &str, name: &str, now: Instant) -> u64 {
    let time = now.mono_ns.to_le_bytes();
    let bytes = target.bytes().chain([0]).chain(name.bytes()).chain(time);
    bytes.fold(fingerprint ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One line being written.
struct Line {
    text: String,
}

impl Line {
    fn new(now: Instant, level: Level, target: &str, name: &str) -> Self {
        let mut line = Self { text: String::with_capacity(160) };
        line.text.push_str("ts=");
        write_time(&mut line.text, now.unix_us);
        let _ = write!(line.text, " level={}", level.word());
        line.pair("target", &target);
        line.pair("msg", &name);
        line
    }

    fn pair(&mut self, key: &str, value: &dyn Display) {
        let start = self.text.len();
        let mut cut = Cut { text: String::new(), cut: false };
        // Fails where it was cut, or where the value says so.
        let _ = write!(cut, "{value}");
        self.text.push(' ');
        // A key is a word, whoever wrote it.
        self.text.extend(key.chars().map(|c| if is_plain(c) { c } else { '_' }));
        self.text.push('=');
        write_value(&mut self.text, &cut.text);
        if cut.cut {
            self.text.push('…');
        }
        if self.text.len() >= LINE_MAX_BYTES {
            self.text.truncate(start);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.text.push('\n');
        self.text.into_bytes()
    }
}

/// Takes the first [`VALUE_MAX_BYTES`].
struct Cut {
    text: String,
    cut: bool,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = VALUE_MAX_BYTES - self.text.len();
        let end = part.floor_char_boundary(room);
        self.text.push_str(&part[..end]);
        if end < part.len() {
            self.cut = true;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c > ' ' && c != '=' && c != '"' && c != '\\' && !c.is_control() && !c.is_whitespace()
}

fn write_value(text: &mut String, value: &str) {
    if !value.is_empty() && value.chars().all(is_plain) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Writes microseconds since the epoch as in RFC 3339, in UTC.
fn write_time(text: &mut String, unix_us: u64) {
    let (seconds, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, counting from March in eras of 400 years
    // (H. Hinnant, "chrono-compatible low-level date algorithms").
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let _ =
        write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z");
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Event =
        Event { target: "shard", name: "stall", level: Level::Warn, lines_per_s: 2 };

    fn at(mono_ms: u64) -> Instant {
        Instant { mono_ns: mono_ms * 1_000_000, unix_us: 1_709_210_096_000_007 }
    }

    #[test]
    fn a_line_has_time_level_target_message_and_values() {
        let log = Log::memory(Level::Info);
        log.event(&STALL, at(0), &[("shard", &0), ("task", &"accept loop"), ("empty", &"")]);
        log.debug("cache", at(0), "not shown", &[]);
        assert_eq!(
            log.take(),
            "ts=2024-02-29T12:34:56.000007Z level=warn target=shard msg=stall shard=0 \
             task=\"accept loop\" empty=\"\"\n"
        );
        log.set_level(Level::Debug);
        log.debug("cache", at(0), "now shown", &[]);
        assert!(log.take().contains("level=debug target=cache msg=\"now shown\"\n"));
    }

    #[test]
    fn values_cannot_forge_lines_or_fill_them() {
        let log = Log::memory(Level::Info);
        let evil = "x\nts=0 level=error \"\\\u{1b}\u{85}\u{2028}é";
        log.info("t", at(0), "m", &[("v", &evil), ("a b=\n", &1)]);
        let line = log.take();
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.ends_with("v=\"x\\nts=0 level=error \\\"\\\\\\u001b\\u0085\u{2028}é\" a_b__=1\n"),
            "{line}"
        );
        let long = "é".repeat(VALUE_MAX_BYTES);
        let pairs: Vec<(&str, &dyn Display)> = vec![("v", &long); 20];
        log.warn("t", at(0), "m", &pairs);
        let line = log.take();
        assert!(line.len() <= LINE_MAX_BYTES && line.len() > LINE_MAX_BYTES / 2, "{}", line.len());
        assert!(line.ends_with("é…\n"));
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let log = Log::memory(Level::Info);
        for _ in 0..100 {
            log.event(&STALL, at(500), &[]);
        }
        log.error("other", at(500), "has its own limit", &[]);
        assert_eq!(log.take().lines().count(), 3);
        log.event(&STALL, at(1_500), &[]);
        assert!(log.take().ends_with("msg=stall suppressed=98\n"));
        log.event(&STALL, at(1_500), &[]);
        assert!(log.take().ends_with("msg=stall\n"));
        log.event(&STALL, at(900), &[]);
        assert_eq!(log.take(), "", "another shard's clock opens no new window");
        let total = log.counts().into_iter().find(|count| count.name == "stall").unwrap().total;
        assert_eq!(total, 103);
    }

    #[test]
    fn events_told_apart_are_bounded() {
        let log = Log::memory(Level::Error);
        for n in 0..EVENTS_MAX + 50 {
            log.info("t", at(0), &format!("event {n:04}"), &[]);
        }
        let counts = log.counts();
        assert_eq!(counts.len(), EVENTS_MAX + 1);
        let other = counts.iter().find(|count| count.target == "other").unwrap();
        assert_eq!(other.total, 50);
    }

    #[test]
    fn the_fingerprint_depends_on_what_and_when() {
        let of = |name: &str, ms| {
            let log = Log::memory(Level::Error);
            log.info("t", at(ms), name, &[]);
            log.info("t", at(ms), "again", &[]);
            log.fingerprint()
        };
        assert_eq!(of("a", 1), of("a", 1), "also for levels that are not shown");
        assert_ne!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), of("a", 2));
    }

    #[test]
    fn the_calendar_is_right() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut text = String::new();
            write_time(&mut text, unix_s * 1_000_000);
            assert_eq!(text, expected);
        }
        write_time(&mut String::new(), u64::MAX);
    }

    /// An output that takes nothing until it is told to.
    struct Stuck(Arc<Mutex<Vec<u8>>>, Receiver<()>);

    impl std::io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // Until the other end is gone.
            let _ = self.1.recv();
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_standard_error_stops_nobody() {
        let (open, gate) = sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (log, writer) = Log::start_to(Level::Info, Stuck(Arc::clone(&written), gate)).unwrap();
        for n in 0..QUEUE_LINES as u64 * 2 {
            log.info("t", at(n * 1_000), "line", &[("n", &n)]);
        }
        let dropped = log.dropped();
        assert!(dropped >= QUEUE_LINES as u64 - 1, "{dropped}");
        drop(open);
        // With the second line there is room for the word to stop; the first did not wait in the queue.
        while lock(&written).iter().filter(|&&byte| byte == b'\n').count() < 2 {
            std::thread::yield_now();
        }
        drop(writer);
        let lines = String::from_utf8(lock(&written).clone()).unwrap();
        assert_eq!(lines.lines().count() as u64 + dropped, QUEUE_LINES as u64 * 2);
        assert!(lines.lines().next().unwrap().ends_with(" n=0"));
    }
}
