//! Requests that are drawn as they leave, where an arena of them would not do.
//!
//! Why not always encoded before the run: an arena goes round. Its rare keys are the same in every lap, and of
//! 8 MiB with values of 1,000 B there are 8,000; a key that is new in the first lap is old in the second; and a
//! write that follows its read has to wait for that. So a law over keys, inserts and read-modify-writes are drawn one by
//! one, at the price of a draw and an encoding each, and [`Workload::is_drawn`] says when.
//! Invariants: a key is read only once its insert was answered; the memory is that of requests without a reply,
//! bounded by [`check`] and [`INSERTS_OPEN_MAX`], whatever the number of keys. Next: `keys`, `generator`.

use std::collections::VecDeque;

use super::keys::Keys;
use super::protocol::{Asked, Codec, Protocol};
use super::tally::Kinds;
use super::{Target, Workload};
use crate::rng::Rng;

/// Inserts beyond the oldest one without a reply; then writes go to old keys until it has come.
pub const INSERTS_OPEN_MAX: usize = 1 << 16;
/// Requests that leave together, unless it is one.
pub(super) const BATCH_MAX_BYTES: usize = 64 << 10;
/// One such batch or value on each connection, at most.
const ALL_MAX_BYTES: usize = 1 << 30;
/// What a request is longer than its value, at most.
const HEAD_LEN_BYTES: usize = 128;

/// What a request is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing.
    Alone,
    /// It makes a new key.
    Insert,
    /// The read of a read-modify-write.
    PairRead,
    /// The write of one whose read was due then.
    PairWrite {
        /// When that was.
        due_ns: u64,
    },
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Drawn {
    asked: Asked,
    part: Part,
}

/// A write whose read was answered.
#[derive(Clone, Copy, Debug)]
struct Owed {
    key: u32,
    /// When the read was due.
    due_ns: u64,
}

/// Draws requests of one run.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    rng: Rng,
    keys: Keys,
    set_share: f64,
    pair_share: f64,
    inserts: bool,
    /// Keys below this are there.
    known: u32,
    /// The next new key.
    next: u32,
    /// Whether the inserts from `known` to `next` were answered; the first was not.
    open: VecDeque<bool>,
}

impl Draws {
    pub(super) fn new(workload: &Workload) -> Self {
        let stored = workload.keys.max(1);
        Self {
            // Apart from the generator's, so that arrivals do not depend on what is asked.
            rng: Rng::new(workload.seed.rotate_left(32) ^ 0x6b65_7973),
            keys: Keys::new(workload.key_dist, stored),
            set_share: workload.set_share,
            pair_share: workload.rmw_share,
            inserts: workload.inserts,
            known: stored,
            next: stored,
            open: VecDeque::new(),
        }
    }

    /// The next request of a connection that owes these writes.
    #[inline]
    fn draw(&mut self, owed: &mut VecDeque<Owed>) -> Drawn {
        if let Some(Owed { key, due_ns }) = owed.pop_front() {
            return Drawn { asked: Asked { key, set: true }, part: Part::PairWrite { due_ns } };
        }
        let kind = self.rng.unit();
        let set = kind < self.set_share;
        if set
            && self.inserts
            && let Some(key) = self.insert()
        {
            return Drawn { asked: Asked { key, set }, part: Part::Insert };
        }
        let key = self.keys.draw(self.known, &mut self.rng);
        let is_pair = !set && kind < self.set_share + self.pair_share;
        let part = if is_pair { Part::PairRead } else { Part::Alone };
        Drawn { asked: Asked { key, set }, part }
    }

    /// A new key; `None` when none is left or too many are open.
    fn insert(&mut self) -> Option<u32> {
        if self.open.len() >= INSERTS_OPEN_MAX || self.next == u32::MAX {
            return None;
        }
        let key = self.next;
        self.next += 1;
        self.open.push_back(false);
        Some(key)
    }

    /// The insert of `key` was answered.
    fn inserted(&mut self, key: u32) {
        if let Some(answered) = self.open.get_mut((key - self.known) as usize) {
            *answered = true;
        }
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.known += 1;
        }
    }
}

/// The drawn requests of one connection.
#[derive(Debug)]
pub(super) struct Drawing {
    /// Those without a reply.
    open: VecDeque<Drawn>,
    /// Writes whose reads were answered; never more than were open together.
    owed: VecDeque<Owed>,
}

impl Drawing {
    pub(super) const fn new() -> Self {
        Self { open: VecDeque::new(), owed: VecDeque::new() }
    }

    /// Draws `count` requests and appends them to `out`.
    pub(super) fn draw(&mut self, draws: &mut Draws, codec: &Codec, count: u32, out: &mut Vec<u8>) {
        for _ in 0..count {
            let drawn = draws.draw(&mut self.owed);
            codec.encode(drawn.asked, out);
            self.open.push_back(drawn);
        }
    }

    /// The oldest one without a reply; any when only a greeting has none.
    #[inline]
    pub(super) fn asked(&self) -> Asked {
        self.open.front().map_or(Asked { key: 0, set: false }, |drawn| drawn.asked)
    }

    /// It was answered. It was due at `due_ns`.
    pub(super) fn answered(&mut self, draws: &mut Draws, due_ns: u64, now_ns: u64, to: &mut Kinds) {
        let Some(Drawn { asked, part }) = self.open.pop_front() else { return };
        let since = |due_ns: u64| now_ns.saturating_sub(due_ns).max(1);
        let of_kind = if asked.set { &mut to.writes } else { &mut to.reads };
        of_kind.saturating_record(since(due_ns));
        match part {
            Part::Alone => {}
            Part::Insert => draws.inserted(asked.key),
            Part::PairRead => self.owed.push_back(Owed { key: asked.key, due_ns }),
            Part::PairWrite { due_ns } => to.pairs.saturating_record(since(due_ns)),
        }
    }
}

/// Whether a run can be made of `workload`.
///
/// # Errors
/// It cannot; the text says what to change.
pub fn check(workload: &Workload, targets: &[Target]) -> Result<(), String> {
    let (sets, pairs) = (workload.set_share, workload.rmw_share);
    if !(sets >= 0.0 && pairs >= 0.0 && sets + pairs <= 1.0) {
        return Err(format!(
            "shares of writes ({sets}) and of read-modify-writes ({pairs}): from 0 to 1 together"
        ));
    }
    if !workload.is_drawn() {
        return Ok(());
    }
    let protocol = workload.protocol;
    let in_path = protocol == Protocol::Http1 && workload.http.has_key();
    if !protocol.has_keys() && !in_path {
        return Err(format!(
            "keys by a law, inserts or read-modify-writes over {}: only where requests have keys, which is resp, resp3, \
             memcache, memcache-meta, and http1 with {{key}} in its path",
            protocol.name()
        ));
    }
    if targets.iter().any(|target| !target.slots.is_empty()) {
        return Err("keys by a law, inserts or read-modify-writes at servers that each have some of the slots: the law \
                    is over all keys, so give one address for all"
            .to_owned());
    }
    let each = BATCH_MAX_BYTES.max(workload.value_len_bytes.saturating_add(HEAD_LEN_BYTES));
    let writes = sets > 0.0 || pairs > 0.0;
    if writes && each.saturating_mul(workload.connections) > ALL_MAX_BYTES {
        return Err(format!(
            "writes of {} bytes over {} connections that are drawn as they leave: at most {ALL_MAX_BYTES} bytes in \
             all; take fewer connections, shorter values, or uniform keys",
            workload.value_len_bytes, workload.connections
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::KeyDist;

    fn workload(set_share: f64, rmw_share: f64) -> Workload {
        let mut workload = Workload::new(Protocol::Resp, 1);
        workload.keys = 1_000;
        workload.key_dist = "latest".parse().expect("a form");
        (workload.set_share, workload.rmw_share) = (set_share, rmw_share);
        workload.inserts = true;
        workload
    }

    #[test]
    fn kinds_have_their_shares() {
        let mut draws = Draws::new(&workload(0.1, 0.3));
        let mut counts = [0; 3];
        for _ in 0..100_000 {
            let drawn = draws.draw(&mut VecDeque::new());
            match drawn.part {
                Part::Insert => {
                    counts[0] += 1;
                    draws.inserted(drawn.asked.key);
                }
                Part::PairRead => counts[1] += 1,
                Part::Alone => counts[2] += 1,
                Part::PairWrite { .. } => panic!("none is owed"),
            }
            assert_eq!(drawn.asked.set, drawn.part == Part::Insert);
        }
        for (count, share) in counts.iter().zip([0.1, 0.3, 0.6]) {
            assert!((f64::from(*count) / 1e5 - share).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn a_key_is_read_only_after_its_insert_was_answered() {
        let mut draws = Draws::new(&workload(0.5, 0.0));
        let mut open = Vec::new();
        let mut answered = vec![false; 20_000];
        let mut newest_read = 0;
        let mut rng = Rng::new(4);
        for _ in 0..20_000 {
            let Drawn { asked, part } = draws.draw(&mut VecDeque::new());
            if part == Part::Insert {
                open.push(asked.key);
            } else {
                let key = asked.key as usize;
                assert!(key < 1_000 || answered[key], "key {key} is not there");
                newest_read = newest_read.max(key);
            }
            // Replies come in any order, some late.
            while open.len() > 50 {
                let key = open.swap_remove(rng.below(open.len() as u64) as usize);
                answered[key as usize] = true;
                draws.inserted(key);
            }
        }
        assert!(newest_read > 10_000, "the newest that was read is {newest_read}");
    }

    #[test]
    fn open_inserts_have_a_bound_and_go_on_after_it() {
        let mut draws = Draws::new(&workload(1.0, 0.0));
        for at in 0..INSERTS_OPEN_MAX {
            assert_eq!(draws.draw(&mut VecDeque::new()).asked.key as usize, 1_000 + at);
        }
        let beyond = draws.draw(&mut VecDeque::new());
        assert!(beyond.asked.set && beyond.asked.key < 1_000 && beyond.part == Part::Alone);
        // All but the oldest are answered: still full. With the oldest none is open.
        (1..INSERTS_OPEN_MAX as u32).for_each(|at| draws.inserted(1_000 + at));
        assert_eq!(draws.draw(&mut VecDeque::new()).part, Part::Alone);
        draws.inserted(1_000);
        assert_eq!((draws.open.len(), draws.known), (0, 1_000 + INSERTS_OPEN_MAX as u32));
        assert_eq!(draws.draw(&mut VecDeque::new()).part, Part::Insert);
        // The last number of all is not taken.
        (draws.known, draws.next) = (u32::MAX - 1, u32::MAX - 1);
        draws.open.clear();
        assert_eq!(draws.draw(&mut VecDeque::new()).asked.key, u32::MAX - 1);
        assert_eq!(draws.draw(&mut VecDeque::new()).part, Part::Alone);
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_words() {
        let all = [Target::all_keys(([127, 0, 0, 1], 1).into())];
        let some = [Target { slots: vec![(0, 9)], ..all[0].clone() }];
        let good = workload(0.5, 0.5);
        assert_eq!(check(&good, &all), Ok(()));
        let refused = |change: &dyn Fn(&mut Workload), targets: &[Target], words: &str| {
            let mut workload = good.clone();
            change(&mut workload);
            let error = check(&workload, targets).expect_err(words);
            assert!(error.contains(words), "{error}");
        };
        refused(&|workload| workload.rmw_share = 0.51, &all, "together");
        refused(&|workload| workload.set_share = f64::NAN, &all, "together");
        refused(&|workload| workload.protocol = Protocol::Echo, &all, "over echo");
        refused(&|workload| workload.protocol = Protocol::Http1, &all, "over http1");
        refused(&|_| {}, &some, "one address for all");
        // At the bound and one beyond it.
        let mut large = good.clone();
        (large.connections, large.value_len_bytes) = (16, (64 << 20) - HEAD_LEN_BYTES);
        assert_eq!(check(&large, &all), Ok(()));
        refused(
            &|workload| {
                (workload.connections, workload.value_len_bytes) =
                    (16, (64 << 20) - HEAD_LEN_BYTES + 1);
            },
            &all,
            "fewer connections",
        );
        let mut plain = good.clone();
        (plain.key_dist, plain.inserts, plain.rmw_share) = (KeyDist::Uniform, false, 0.0);
        assert_eq!(check(&plain, &some), Ok(()), "these come out of an arena");
        let mut http = good.clone();
        http.protocol = Protocol::Http1;
        http.http.path = "/{key}".into();
        assert_eq!(check(&http, &all), Ok(()));
    }
}
