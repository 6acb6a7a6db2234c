//! Fetch sessions: what a reader wants is said once, and then only what changes is said (KIP-227).
//!
//! A full fetch, with epoch 0, may open a session; each request in it carries the next epoch, adds, changes or
//! forgets partitions, and is answered with those that have something new. A full fetch closes the session it
//! names, and epoch -1 opens none. Invariants: at most `sessions_max` sessions with `partitions_max` partitions
//! between them, about 200 bytes and the topic's key each; a request costs O(log partitions) for each partition
//! it names. Partitions are in an order in which each that is answered with records goes to the end, so that
//! none waits for ever behind others.
//!
//! Who goes when there are too many, by rules simpler than Kafka's: the session unused for longest, if that is
//! longer than [`SILENCE_MAX_MS`]; else the smallest of those that are older than that or, for a replica's
//! session, of any consumer's, if it is less worth than the new one; a consumer's is less worth than a
//! replica's, a smaller one less than a larger. If none is, there is no new session, which the protocol allows.
//! That choice looks at all sessions, at most once per full fetch. Next: the broker reads what is answered.

use std::collections::BTreeMap;
use std::hash::Hash;

use view::HashMap;

use crate::store::hash::Rng;

/// Sessions unused for longer may go for a new one.
pub const SILENCE_MAX_MS: u64 = 120_000;
/// The epoch of a request that wants a new session.
pub const EPOCH_INITIAL: i32 = 0;
/// The epoch of a request that wants none.
pub const EPOCH_FINAL: i32 = -1;

/// A partition: the topic's key, which is its id or name, and the partition's number.
pub type Key<T> = (T, i32);

/// What a reader wants of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The offset to read from.
    pub fetch_offset: i64,
    /// Most bytes of the partition.
    pub max_bytes: i32,
    /// The leader's epoch as the reader knows it; -1 for unknown.
    pub current_leader_epoch: i32,
    /// The epoch of the last record it has; -1 for unknown.
    pub last_fetched_epoch: i32,
    /// Where the log of a replica that reads begins; -1 of a consumer.
    pub log_start_offset: i64,
}

/// What there is to answer about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The high watermark.
    pub high_watermark: i64,
    /// Where the log begins.
    pub log_start_offset: i64,
    /// There are records.
    pub has_records: bool,
    /// There is an error.
    pub has_error: bool,
    /// There is a diverging epoch or another replica to read from.
    pub has_notice: bool,
}

/// Identifies a request within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The session; 0 for none.
    pub session_id: i32,
    /// The request's number in it, or [`EPOCH_INITIAL`] or [`EPOCH_FINAL`].
    pub epoch: i32,
}

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With all it names, and no session.
    Sessionless,
    /// With all it names, and a session if [`FetchSessions::create`] makes one.
    Full,
    /// With what is new of the session's partitions.
    Incremental,
}

/// Why a request is refused. The reader then begins with a full fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such session (any more): FETCH_SESSION_ID_NOT_FOUND, 70.
    NoSession,
    /// Another request is due in it: INVALID_FETCH_SESSION_EPOCH, 71.
    Epoch,
    /// It was made with topic ids and is used with names, or the other way round:
    /// FETCH_SESSION_TOPIC_ID_ERROR, 106.
    TopicIds,
}

#[derive(Debug)]
struct Partition<T> {
    key: Key<T>,
    wanted: Wanted,
    /// What the reader was told last; -1 for nothing.
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Session<T> {
    /// The number of the next request.
    epoch: i32,
    privileged: bool,
    topic_ids: bool,
    created_ms: u64,
    used_ms: u64,
    partitions: BTreeMap<u64, Partition<T>>,
    places: HashMap<Key<T>, u64>,
    next_place: u64,
}

impl<T: Clone + Eq + Hash> Session<T> {
    fn push(&mut self, partition: Partition<T>) {
        self.places.insert(partition.key.clone(), self.next_place);
        self.partitions.insert(self.next_place, partition);
        self.next_place += 1;
    }

    fn remove(&mut self, key: &Key<T>) -> Option<Partition<T>> {
        self.places.remove(key).and_then(|place| self.partitions.remove(&place))
    }

    /// Takes new wishes for a partition; whether it is a new one.
    fn want(&mut self, key: &Key<T>, wanted: Wanted) -> bool {
        let place = self.places.get(key);
        if let Some(partition) = place.and_then(|place| self.partitions.get_mut(place)) {
            partition.wanted = wanted;
            return false;
        }
        let key = key.clone();
        self.push(Partition { key, wanted, high_watermark: -1, log_start_offset: -1 });
        true
    }

    fn worth(&self) -> (bool, usize) {
        (self.privileged, self.partitions.len())
    }
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions<T> {
    sessions: HashMap<i32, Session<T>>,
    /// In all sessions.
    partitions: usize,
    sessions_max: usize,
    partitions_max: usize,
    rng: Rng,
}

impl<T: Clone + Eq + Hash> FetchSessions<T> {
    /// None yet. Session ids come from `seed`.
    #[must_use]
    pub fn new(sessions_max: usize, partitions_max: usize, seed: u64) -> Self {
        Self {
            sessions: HashMap::default(),
            partitions: 0,
            sessions_max,
            partitions_max,
            rng: Rng::new(seed),
        }
    }

    /// Takes a request: the partitions that it names with what is wanted of each, and those that it
    /// forgets. `topic_ids` says how it names topics.
    ///
    /// # Errors
    /// The session is not known, is not in step, or, when partitions are too many, has been closed.
    pub fn begin<'a>(
        &mut self,
        place: Place,
        topic_ids: bool,
        wanted: impl IntoIterator<Item = (&'a Key<T>, Wanted)>,
        forgotten: impl IntoIterator<Item = &'a Key<T>>,
        now_ms: u64,
    ) -> Result<Mode, Refused>
    where
        T: 'a,
    {
        let Place { session_id, epoch } = place;
        if epoch == EPOCH_INITIAL || epoch == EPOCH_FINAL {
            self.remove(session_id);
            return Ok(if epoch == EPOCH_FINAL { Mode::Sessionless } else { Mode::Full });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(Refused::NoSession)?;
        if session.epoch != epoch {
            return Err(Refused::Epoch);
        }
        if session.topic_ids != topic_ids {
            return Err(Refused::TopicIds);
        }
        for (key, wanted) in wanted {
            self.partitions += usize::from(session.want(key, wanted));
            if self.partitions > self.partitions_max {
                self.remove(session_id);
                return Err(Refused::NoSession);
            }
        }
        for key in forgotten {
            self.partitions -= usize::from(session.remove(key).is_some());
        }
        if session.partitions.is_empty() {
            self.remove(session_id);
            return Ok(Mode::Sessionless);
        }
        session.used_ms = now_ms;
        session.epoch = next_epoch(epoch);
        Ok(Mode::Incremental)
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Opens a session for a full fetch that has been answered with these partitions; its id, or 0 when
    /// there is no room. `privileged` are the sessions of replicas. The first request in it has epoch 1.
    pub fn create(
        &mut self,
        privileged: bool,
        topic_ids: bool,
        partitions: Vec<(Key<T>, Wanted, Served)>,
        now_ms: u64,
    ) -> i32 {
        let worth = (privileged, partitions.len());
        if partitions.is_empty() || partitions.len() > self.partitions_max {
            return 0;
        }
        let too_many = |sessions: &Self| {
            sessions.sessions.len() >= sessions.sessions_max
                || sessions.partitions + partitions.len() > sessions.partitions_max
        };
        if too_many(self) {
            self.evict(worth, now_ms);
        }
        if too_many(self) {
            return 0;
        }
        let mut session = Session {
            epoch: next_epoch(EPOCH_INITIAL),
            privileged,
            topic_ids,
            created_ms: now_ms,
            used_ms: now_ms,
            partitions: BTreeMap::new(),
            places: HashMap::default(),
            next_place: 0,
        };
        for (key, wanted, served) in partitions {
            session.remove(&key);
            let told = if served.has_error { -1 } else { served.high_watermark };
            session.push(Partition {
                key,
                wanted,
                high_watermark: told,
                log_start_offset: served.log_start_offset,
            });
        }
        self.partitions += session.partitions.len();
        let session_id = self.free_id();
        self.sessions.insert(session_id, session);
        session_id
    }

    /// An id that is not in use: positive, and not to be guessed from others.
    fn free_id(&mut self) -> i32 {
        loop {
            let id = i32::try_from(self.rng.next() >> 33).unwrap_or(0);
            if id > 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Closes the session that is worth least, if it is less worth than a new one.
    fn evict(&mut self, worth: (bool, usize), now_ms: u64) {
        let idle = |session: &Session<T>| now_ms.saturating_sub(session.used_ms);
        let silent = self.sessions.iter().max_by_key(|(id, session)| (idle(session), **id));
        if let Some((&id, _)) = silent.filter(|(_, session)| idle(session) > SILENCE_MAX_MS) {
            return self.remove(id);
        }
        let may_go = |session: &Session<T>| {
            let old = now_ms.saturating_sub(session.created_ms) > SILENCE_MAX_MS;
            (old || (worth.0 && !session.privileged)) && session.worth() < worth
        };
        let all = self.sessions.iter().filter(|(_, session)| may_go(session));
        if let Some((&id, _)) = all.min_by_key(|(id, session)| (session.worth(), **id)) {
            self.remove(id);
        }
    }

    /// The partitions of a session in the order in which they are to be served, with what is wanted of
    /// each; none when there is no such session.
    pub fn partitions(&self, session_id: i32) -> impl Iterator<Item = (&Key<T>, &Wanted)> {
        let session = self.sessions.get(&session_id);
        let partitions = session.into_iter().flat_map(|session| session.partitions.values());
        partitions.map(|partition| (&partition.key, &partition.wanted))
    }

    /// Whether a request that [began](Self::begin) is still the session's last.
    ///
    /// # Errors
    /// The session is gone, or another request came while this one waited.
    pub fn check(&self, place: Place) -> Result<(), Refused> {
        let session = self.sessions.get(&place.session_id).ok_or(Refused::NoSession)?;
        let last = session.epoch == next_epoch(place.epoch);
        if last { Ok(()) } else { Err(Refused::Epoch) }
    }

    /// Whether a partition stands in the answer of a request whose [place holds](Self::check): it has
    /// records, an error or a notice, or numbers that the reader does not know. They count as told then,
    /// and the partition goes to the end if it has records.
    pub fn answer(&mut self, session_id: i32, key: &Key<T>, served: &Served) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        let place = session.places.get(key);
        let partition = place.and_then(|place| session.partitions.get_mut(place));
        let Some(partition) = partition else { return false };
        let told = (partition.high_watermark, partition.log_start_offset);
        let changed = told != (served.high_watermark, served.log_start_offset);
        // What the numbers were is forgotten with an error, so that its end is told too.
        partition.high_watermark = if served.has_error { -1 } else { served.high_watermark };
        partition.log_start_offset = served.log_start_offset;
        if served.has_records
            && let Some(partition) = session.remove(key)
        {
            session.push(partition);
        }
        changed || served.has_records || served.has_error || served.has_notice
    }

    /// Sessions open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Partitions in all sessions.
    #[must_use]
    pub const fn partition_count(&self) -> usize {
        self.partitions
    }
}

/// The epoch after one: 1 after the largest.
const fn next_epoch(epoch: i32) -> i32 {
    if epoch < 0 {
        EPOCH_FINAL
    } else if epoch == i32::MAX {
        1
    } else {
        epoch + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Sessions = FetchSessions<&'static str>;

    const WANTED: Wanted = Wanted {
        fetch_offset: 0,
        max_bytes: 1000,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
    };
    const SERVED: Served = Served {
        high_watermark: 10,
        log_start_offset: 0,
        has_records: false,
        has_error: false,
        has_notice: false,
    };

    fn of(partitions: i32) -> Vec<(Key<&'static str>, Wanted, Served)> {
        (0..partitions).map(|index| (("t", index), WANTED, SERVED)).collect()
    }

    fn order(sessions: &Sessions, id: i32) -> Vec<i32> {
        sessions.partitions(id).map(|((_, index), _)| *index).collect()
    }

    fn begin(sessions: &mut Sessions, session_id: i32, epoch: i32) -> Result<Mode, Refused> {
        sessions.begin(Place { session_id, epoch }, false, [], [], 0)
    }

    #[test]
    fn requests_are_in_step() {
        let mut sessions = Sessions::new(10, 100, 1);
        assert_eq!(begin(&mut sessions, 0, 0), Ok(Mode::Full));
        assert_eq!(begin(&mut sessions, 0, -1), Ok(Mode::Sessionless));
        assert_eq!(begin(&mut sessions, 9, 1), Err(Refused::NoSession));
        let id = sessions.create(false, false, of(2), 0);
        assert!(id > 0);
        assert_eq!(begin(&mut sessions, id, 2), Err(Refused::Epoch));
        assert_eq!(begin(&mut sessions, id, 1), Ok(Mode::Incremental));
        let place = |epoch| Place { session_id: id, epoch };
        assert_eq!(sessions.check(place(1)), Ok(()));
        assert_eq!(begin(&mut sessions, id, 1), Err(Refused::Epoch), "twice");
        let with_ids = sessions.begin(place(2), true, [], [], 0);
        assert_eq!(with_ids, Err(Refused::TopicIds));
        assert_eq!(begin(&mut sessions, id, 2), Ok(Mode::Incremental));
        assert_eq!(sessions.check(place(1)), Err(Refused::Epoch), "another came");
        assert_eq!(begin(&mut sessions, id, 0), Ok(Mode::Full));
        assert_eq!(sessions.check(place(2)), Err(Refused::NoSession), "a full one closes it");
        assert_eq!((sessions.len(), sessions.partition_count()), (0, 0));
        let id = sessions.create(false, false, of(2), 0);
        assert_eq!(begin(&mut sessions, id, -1), Ok(Mode::Sessionless));
        assert!(sessions.is_empty());
        assert_eq!([next_epoch(i32::MAX), next_epoch(0), next_epoch(-1)], [1, 1, -1]);
    }

    #[test]
    fn wishes_change_and_the_last_one_forgotten_closes() {
        let mut sessions = Sessions::new(10, 100, 1);
        let id = sessions.create(false, false, of(2), 0);
        let further = Wanted { fetch_offset: 7, ..WANTED };
        let place = Place { session_id: id, epoch: 1 };
        let asked = [(&("t", 1), further), (&("u", 5), further)];
        assert_eq!(sessions.begin(place, false, asked, [&("t", 0)], 0), Ok(Mode::Incremental));
        let known: Vec<_> = sessions.partitions(id).collect();
        assert_eq!(known, [(&("t", 1), &further), (&("u", 5), &further)]);
        let place = Place { session_id: id, epoch: 2 };
        let all = [&("t", 1), &("u", 5), &("v", 1)];
        assert_eq!(sessions.begin(place, false, [], all, 0), Ok(Mode::Sessionless));
        assert_eq!((sessions.len(), sessions.partition_count()), (0, 0));
    }

    #[test]
    fn what_is_new_is_answered() {
        let mut sessions = Sessions::new(10, 100, 1);
        let id = sessions.create(false, false, of(3), 0);
        let mut answer = |served| sessions.answer(id, &("t", 1), &served);
        assert!(!answer(SERVED));
        assert!(answer(Served { high_watermark: 11, ..SERVED }));
        assert!(!answer(Served { high_watermark: 11, ..SERVED }));
        assert!(answer(Served { high_watermark: 11, log_start_offset: 3, ..SERVED }));
        assert!(answer(SERVED));
        assert!(answer(Served { has_notice: true, ..SERVED }));
        assert!(answer(Served { has_error: true, ..SERVED }));
        assert!(answer(SERVED), "the error is over");
        assert!(!answer(SERVED));
        assert!(answer(Served { has_records: true, ..SERVED }));
        assert_eq!(order(&sessions, id), [0, 2, 1]);
        assert!(!sessions.answer(id, &("u", 1), &SERVED));
        assert!(!sessions.answer(id + 1, &("t", 1), &SERVED));
        let failed = vec![(("t", 0), WANTED, Served { has_error: true, ..SERVED })];
        let id = sessions.create(false, false, failed, 0);
        assert!(sessions.answer(id, &("t", 0), &SERVED), "the error is over");
    }

    #[test]
    fn who_is_worth_least_goes() {
        let old = SILENCE_MAX_MS + 1;
        // Of the session there: replica's, partitions, age; of the new one; whether it gets the room.
        for (replica, size, created_ms, used_ms, new_replica, new_size, gets) in [
            (false, 2, 0, 0, false, 9, false),
            (false, 2, old, 0, false, 3, true),
            (false, 2, old, 0, false, 2, false),
            (true, 2, old, 0, false, 9, false),
            (true, 2, old, 0, true, 3, true),
            (false, 9, 0, 0, true, 1, true),
            (true, 2, 0, 0, true, 9, false),
            (true, 9, old, old, false, 1, true),
        ] {
            let mut sessions = Sessions::new(1, 100, 1);
            let now_ms = 10 * SILENCE_MAX_MS;
            let id = sessions.create(replica, false, of(size), now_ms - created_ms);
            if used_ms < created_ms {
                let place = Place { session_id: id, epoch: 1 };
                sessions.begin(place, false, [], [], now_ms - used_ms).expect("in step");
            }
            let new = sessions.create(new_replica, false, of(new_size), now_ms);
            assert_eq!(
                new > 0,
                gets,
                "{replica} {size} {created_ms} {used_ms} {new_replica} {new_size}"
            );
            assert_eq!(sessions.len(), 1);
        }
    }

    #[test]
    fn sessions_and_partitions_are_bounded() {
        let mut sessions = Sessions::new(2, 5, 1);
        assert_eq!(sessions.create(false, false, of(0), 0), 0);
        assert_eq!(sessions.create(false, false, of(6), 0), 0);
        let id = sessions.create(false, false, of(4), 0);
        assert_eq!(sessions.create(false, false, of(2), 0), 0, "six partitions");
        assert!(sessions.create(false, false, of(1), 0) > 0);
        assert_eq!(sessions.create(false, false, of(1), 0), 0, "three sessions");
        let place = Place { session_id: id, epoch: 1 };
        let again = sessions.begin(place, false, [(&("t", 3), WANTED)], [], 0);
        assert_eq!(again, Ok(Mode::Incremental));
        let place = Place { session_id: id, epoch: 2 };
        let more = sessions.begin(place, false, [(&("t", 4), WANTED)], [], 0);
        assert_eq!(more, Err(Refused::NoSession));
        assert_eq!((sessions.len(), sessions.partition_count()), (1, 1));
        let twice = [of(2), of(2)].concat();
        sessions.create(false, false, twice, 0);
        assert_eq!(sessions.partition_count(), 3, "a partition that is named twice counts once");
    }

    proptest! {
        #[test]
        fn none_waits_behind_those_that_always_have_records(
            partitions in 1_i32..12,
            rounds in prop::collection::vec(1_usize..4, 1..30),
        ) {
            // Every partition always has records, and an answer has room for a few.
            let mut sessions = Sessions::new(1, 100, 1);
            let id = sessions.create(false, false, of(partitions), 0);
            let mut served = vec![0_usize; usize::try_from(partitions)?];
            for room in rounds {
                for index in order(&sessions, id).into_iter().take(room) {
                    let records = Served { has_records: true, ..SERVED };
                    prop_assert!(sessions.answer(id, &("t", index), &records));
                    *served.get_mut(usize::try_from(index)?).expect("one") += 1;
                }
                let most = served.iter().max().copied().unwrap_or(0);
                let least = served.iter().min().copied().unwrap_or(0);
                prop_assert!(most - least <= 1);
            }
        }
    }
}
