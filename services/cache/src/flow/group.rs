//! The flows from one master, and what those who read them agree upon.
//!
//! Flows end together: all stop to read, then each applies what it has as far as it can, so that a command over several
//! shards of the master is applied on all of them or on none, whatever cut the links.
//! Invariants: a part of such a command is applied when all its parts have come; what concerns all keys is run once, when
//! all flows have come to it; functions are made in the order of their changes. Next: `follow.rs` for a flow,
//! `repl/link.rs` for who begins and ends groups.

use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use view::HashMap;

use super::entries::Part;
use crate::aof::TxName;

/// A shard of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Names the places in its journal.
    pub(crate) history: u64,
}

/// Where a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// How far it was applied.
    pub(crate) at: u64,
    /// What the reader of the journal knows there.
    pub(crate) db: u16,
    pub(crate) clock_ms: u64,
}

/// How a group is set up.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) targets: Vec<Target>,
    /// Of the master.
    pub(crate) databases: u16,
    /// AUTH, if the master wants it.
    pub(crate) login: Vec<Vec<u8>>,
    /// The port that the master is told.
    pub(crate) port: u16,
    pub(crate) timeout_ns: u64,
    /// Which master is followed: another number, and nothing more is applied.
    pub(crate) generation: u64,
    /// Everything is to come.
    pub(crate) is_full: bool,
}

/// The flows from one master.
#[derive(Debug)]
pub struct Group {
    pub(crate) setup: Setup,
    places: Mutex<Vec<Place>>,
    pub(crate) shared: Arc<Shared>,
    may_begin: AtomicBool,
    /// They are to end, or one has.
    ends: AtomicBool,
    /// One of them cannot go on where it was.
    misses: AtomicBool,
    /// How many have a link, and how many all keys.
    connected: AtomicUsize,
    ready: AtomicUsize,
    /// How many do not read any more, and how many have ended.
    stopped: AtomicUsize,
    ended: AtomicUsize,
    heard_s: AtomicU64,
    why: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    pub(crate) fn new(setup: Setup, places: Vec<Place>, shared: Arc<Shared>) -> Self {
        Self {
            setup,
            places: Mutex::new(places),
            shared,
            may_begin: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            misses: AtomicBool::new(false),
            connected: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            heard_s: AtomicU64::new(0),
            why: Mutex::new(None),
        }
    }

    fn count(&self) -> usize {
        self.setup.targets.len()
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        lock(&self.places).clone()
    }

    /// How far all of them are, together.
    pub(crate) fn offset(&self) -> u64 {
        lock(&self.places).iter().map(|place| place.at).sum()
    }

    /// Until when all of them have come.
    pub(crate) fn clock_ms(&self) -> u64 {
        lock(&self.places).iter().map(|place| place.clock_ms).min().unwrap_or(0)
    }

    pub(super) fn set_place(&self, flow: usize, place: Place) {
        if let Some(at) = lock(&self.places).get_mut(flow) {
            *at = place;
        }
    }

    /// When a flow was last heard, unix seconds.
    pub(crate) fn heard_s(&self) -> u64 {
        self.heard_s.load(Acquire)
    }

    pub(super) fn heard(&self, now_s: u64) {
        self.heard_s.store(now_s, Release);
    }

    /// What there was is gone: flows may apply what they get.
    pub(crate) fn begin(&self) {
        self.may_begin.store(true, Release);
    }

    pub(super) fn may_begin(&self) -> bool {
        self.may_begin.load(Acquire)
    }

    /// All flows are to end.
    pub(crate) fn end(&self) {
        self.ends.store(true, Release);
    }

    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Acquire)
    }

    /// Everything has to come again, for this reason.
    pub(super) fn miss(&self, why: &str) {
        self.failed(why);
        self.misses.store(true, Release);
        self.end();
    }

    /// Whether everything has to come again.
    pub(crate) fn misses(&self) -> bool {
        self.misses.load(Acquire)
    }

    pub(super) fn failed(&self, why: &str) {
        lock(&self.why).get_or_insert_with(|| why.to_owned());
    }

    /// Why they ended, if one failed.
    pub(crate) fn why(&self) -> Option<String> {
        lock(&self.why).clone()
    }

    pub(super) fn connects(&self) {
        self.connected.fetch_add(1, AcqRel);
    }

    pub(crate) fn are_connected(&self) -> bool {
        self.connected.load(Acquire) >= self.count()
    }

    pub(super) fn is_whole(&self) {
        self.ready.fetch_add(1, AcqRel);
    }

    /// Whether all keys have come.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Acquire) >= self.count()
    }

    pub(super) fn stops(&self) {
        self.stopped.fetch_add(1, AcqRel);
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Acquire) >= self.count()
    }

    pub(super) fn has_ended_one(&self) {
        self.ended.fetch_add(1, AcqRel);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Acquire) >= self.count()
    }
}

/// What outlives a group, if the next one goes on where it was.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    parts: Mutex<HashMap<TxName, Known>>,
    functions: Mutex<Functions>,
}

/// Functions that were made.
#[derive(Debug, Default)]
struct Functions {
    number: u64,
    /// Some are being made.
    is_busy: bool,
}

/// What is known of a command over several shards of the master.
#[derive(Debug, Default)]
struct Known {
    /// Flows to which its part has come, those that stand before it, and those that have applied it.
    come: Vec<u16>,
    reached: Vec<u16>,
    applied: Vec<u16>,
    /// It concerns all keys: somebody runs it, or has.
    runs: bool,
    has_run: bool,
}

/// Who is to run what concerns all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Not all have come so far.
    Wait,
    /// Whoever is told this.
    Run,
    /// It has been run.
    Done,
}

fn note(list: &mut Vec<u16>, flow: u16) {
    if !list.contains(&flow) {
        list.push(flow);
    }
}

fn all(list: &[u16], shards: &[u16]) -> bool {
    shards.iter().all(|shard| list.contains(shard))
}

impl Shared {
    /// Parts have come to a flow.
    pub(super) fn come(&self, names: &mut Vec<TxName>, flow: u16) {
        if names.is_empty() {
            return;
        }
        let mut parts = lock(&self.parts);
        for name in names.drain(..) {
            note(&mut parts.entry(name).or_default().come, flow);
        }
    }

    /// Whether all parts have come.
    pub(super) fn is_whole(&self, part: &Part) -> bool {
        lock(&self.parts).get(&part.name).is_some_and(|known| all(&known.come, &part.shards))
    }

    /// A flow stands before what concerns all keys.
    pub(super) fn reach(&self, part: &Part, flow: u16) -> Turn {
        let mut parts = lock(&self.parts);
        let known = parts.entry(part.name).or_default();
        note(&mut known.reached, flow);
        if known.has_run {
            Turn::Done
        } else if all(&known.reached, &part.shards) && !std::mem::replace(&mut known.runs, true) {
            Turn::Run
        } else {
            Turn::Wait
        }
    }

    /// What concerns all keys was run.
    pub(super) fn has_run(&self, part: &Part) {
        if let Some(known) = lock(&self.parts).get_mut(&part.name) {
            known.has_run = true;
        }
    }

    /// A flow has applied its part.
    pub(super) fn applied(&self, part: &Part, flow: u16) {
        let mut parts = lock(&self.parts);
        let Some(known) = parts.get_mut(&part.name) else { return };
        note(&mut known.applied, flow);
        if all(&known.applied, &part.shards) {
            parts.remove(&part.name);
        }
    }

    /// Whether a change of the functions is to be made now; nothing while another one is.
    pub(super) fn begin_functions(&self, number: u64) -> Option<bool> {
        let mut functions = lock(&self.functions);
        if functions.is_busy {
            return None;
        }
        let is_newer = number > functions.number;
        functions.is_busy = is_newer;
        Some(is_newer)
    }

    /// It was made.
    pub(super) fn end_functions(&self, number: u64) {
        *lock(&self.functions) = Functions { number, is_busy: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ticket: u64) -> Part {
        let name = TxName { boot_us: 1, ticket };
        Part { name, shards: vec![0, 2], bytes: Vec::new(), all: None }
    }

    #[test]
    fn a_part_is_whole_when_all_have_come_and_forgotten_when_all_are_applied() {
        let (shared, part) = (Shared::default(), part(1));
        shared.come(&mut vec![part.name], 0);
        assert!(!shared.is_whole(&part));
        // Again, after a link was cut.
        shared.come(&mut vec![part.name], 0);
        assert!(!shared.is_whole(&part));
        shared.come(&mut vec![part.name], 2);
        assert!(shared.is_whole(&part));
        shared.applied(&part, 2);
        assert!(shared.is_whole(&part));
        shared.applied(&part, 0);
        assert!(lock(&shared.parts).is_empty());
    }

    #[test]
    fn what_concerns_all_keys_is_run_once_when_all_stand_before_it() {
        let (shared, part) = (Shared::default(), part(2));
        assert_eq!(shared.reach(&part, 0), Turn::Wait);
        assert_eq!(shared.reach(&part, 0), Turn::Wait);
        assert_eq!(shared.reach(&part, 2), Turn::Run);
        assert_eq!(shared.reach(&part, 0), Turn::Wait);
        shared.has_run(&part);
        assert_eq!((shared.reach(&part, 0), shared.reach(&part, 2)), (Turn::Done, Turn::Done));
    }

    #[test]
    fn functions_are_made_in_the_order_of_their_changes() {
        let shared = Shared::default();
        assert_eq!(shared.begin_functions(5), Some(true));
        assert_eq!(shared.begin_functions(6), None);
        shared.end_functions(5);
        assert_eq!(
            (shared.begin_functions(4), shared.begin_functions(6)),
            (Some(false), Some(true))
        );
    }
}
