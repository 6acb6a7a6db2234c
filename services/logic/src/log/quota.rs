//! How long a client that uses more than its share is to be left alone.
//!
//! What a client uses is summed up in samples of a second, of which eleven count. When the rate over them is
//! above the limit the client waits for as long as it takes until it no longer is, if it does nothing else
//! (KIP-13, KIP-124, KIP-219): with sum `S`, limit `L` per second and window `W` that is `S / L - W`. Rules are
//! those of Kafka's Rate, except that a sample that has become too old counts for nothing, where Kafka counts
//! it with the time at which it noticed. Invariants: no floating point on the way; a client costs 296 bytes and
//! its key twice; at most `entities_max` clients, and a step never looks at more than a few. Next: the
//! broker finds the limit for a user and a client id and mutes the connection.

use std::hash::Hash;

use view::HashMap;

/// Samples that count, the one being filled included.
pub const SAMPLES: usize = 11;
/// What a sample covers.
pub const SAMPLE_MS: u64 = 1000;
/// A client that did nothing for so long is forgotten.
pub const SILENCE_MAX_MS: u64 = 60 * 60 * 1000;
/// Clients that are looked at to find one that goes when there are too many.
const EVICT_LOOKS: usize = 16;
const WINDOW_MS: u64 = SAMPLES as u64 * SAMPLE_MS;
const WINDOW_MIN_MS: u64 = (SAMPLES as u64 - 1) * SAMPLE_MS;

/// What a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes, or nanoseconds of a request's handling, in a second.
    pub per_second: u64,
    /// Longest time to wait at once.
    pub wait_max_ms: u64,
}

impl Limit {
    /// Of bytes in a second.
    #[must_use]
    pub const fn bytes(per_second: u64) -> Self {
        Self { per_second, wait_max_ms: i32::MAX as u64 }
    }

    /// Of a thread's time, in percent, recorded in nanoseconds; waits are a sample long at most, as
    /// Kafka's are.
    #[must_use]
    pub fn request_percentage(percent: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a cast to an integer saturates")]
        #[expect(clippy::cast_sign_loss, reason = "a cast to an integer saturates")]
        let per_second = (percent * 1e7) as u64;
        Self { per_second, wait_max_ms: SAMPLE_MS }
    }

    /// The most that can be used at once without a wait for certain, which bounds a fetch.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.per_second.saturating_mul(WINDOW_MIN_MS / 1000)
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    start_ms: u64,
    used_ms: u64,
    sum: u64,
}

impl Sample {
    const fn new(start_ms: u64) -> Self {
        Self { start_ms, used_ms: start_ms, sum: 0 }
    }
}

/// The rate of one client.
#[derive(Clone, Debug)]
struct Rate {
    current: Sample,
    /// Newest first.
    older: [Sample; SAMPLES],
}

impl Rate {
    const fn new(now_ms: u64) -> Self {
        let empty = Sample::new(now_ms);
        Self { current: empty, older: [empty; SAMPLES] }
    }

    /// The sample being filled, a new one when a second is over.
    fn sample(&mut self, now_ms: u64) -> &mut Sample {
        if now_ms.saturating_sub(self.current.start_ms) >= SAMPLE_MS {
            self.older.rotate_right(1);
            let [newest, ..] = &mut self.older;
            *newest = std::mem::replace(&mut self.current, Sample::new(now_ms));
        }
        &mut self.current
    }

    fn record(&mut self, amount: u64, now_ms: u64) {
        let sample = self.sample(now_ms);
        sample.sum = sample.sum.saturating_add(amount);
        sample.used_ms = now_ms;
    }

    /// How long to wait.
    fn wait_ms(&self, limit: Limit, now_ms: u64) -> u64 {
        let counts = |sample: &&Sample| now_ms.saturating_sub(sample.used_ms) < WINDOW_MS;
        let (mut sum, mut start_ms) = (0_u64, now_ms);
        for sample in self.older.iter().chain([&self.current]).filter(counts) {
            sum = sum.saturating_add(sample.sum);
            start_ms = start_ms.min(sample.start_ms);
        }
        // Younger than the window: as if it had been silent before, but for the sample being filled.
        let elapsed = now_ms.saturating_sub(start_ms);
        let missing = (SAMPLES as u64 - 1).saturating_sub(elapsed / SAMPLE_MS);
        let window_ms = elapsed + missing * SAMPLE_MS;
        let per_second = u128::from(limit.per_second);
        let used = u128::from(sum) * 1000;
        if used <= per_second * u128::from(window_ms) {
            return 0;
        }
        let enough_ms = (used + per_second / 2).checked_div(per_second).unwrap_or(u128::MAX);
        let wait_ms = u64::try_from(enough_ms).unwrap_or(u64::MAX).saturating_sub(window_ms);
        wait_ms.min(limit.wait_max_ms)
    }
}

#[derive(Clone, Debug)]
struct Entity<K> {
    key: K,
    seen_ms: u64,
    rate: Rate,
}

/// The rates of clients, for one kind of use. `K` names a client, such as a user and a client id.
#[derive(Clone, Debug)]
pub struct Quotas<K> {
    entities: Vec<Entity<K>>,
    places: HashMap<K, usize>,
    /// Where the next look for silent clients begins.
    hand: usize,
    entities_max: usize,
}

impl<K: Clone + Eq + Hash> Quotas<K> {
    /// No client yet, and at most `entities_max`.
    #[must_use]
    pub fn new(entities_max: usize) -> Self {
        Self {
            entities: Vec::new(),
            places: HashMap::default(),
            hand: 0,
            entities_max: entities_max.max(1),
        }
    }

    /// Notes that a client used `amount`; how many milliseconds it waits before it is read from again.
    /// O(1). When there are too many clients the most silent of a few is forgotten.
    pub fn record(&mut self, key: &K, amount: u64, limit: Limit, now_ms: u64) -> u64 {
        let place = self.places.get(key).copied();
        let place = place.unwrap_or_else(|| self.add(key.clone(), now_ms));
        let Some(entity) = self.entities.get_mut(place) else { return 0 };
        entity.seen_ms = now_ms;
        entity.rate.record(amount, now_ms);
        entity.rate.wait_ms(limit, now_ms)
    }

    /// Takes back what was noted in this moment: the answer of a fetch that is delayed is empty, and what
    /// it would have carried is not used (KIP-219).
    pub fn take_back(&mut self, key: &K, amount: u64, now_ms: u64) {
        if let Some(entity) = self.places.get(key).and_then(|at| self.entities.get_mut(*at)) {
            let sample = entity.rate.sample(now_ms);
            sample.sum = sample.sum.saturating_sub(amount);
        }
    }

    fn add(&mut self, key: K, now_ms: u64) -> usize {
        if self.entities.len() >= self.entities_max {
            let looks = self.entities.len().min(EVICT_LOOKS);
            let looked = (0..looks).map(|step| (self.hand + step) % self.entities.len());
            let seen = |at: &usize| self.entities.get(*at).map(|entity| entity.seen_ms);
            if let Some(silent) = looked.min_by_key(seen) {
                self.hand = silent + 1;
                self.remove(silent);
            }
        }
        let place = self.entities.len();
        self.places.insert(key.clone(), place);
        self.entities.push(Entity { key, seen_ms: now_ms, rate: Rate::new(now_ms) });
        place
    }

    fn remove(&mut self, at: usize) {
        let removed = self.entities.swap_remove(at);
        self.places.remove(&removed.key);
        if let Some(moved) = self.entities.get(at) {
            self.places.insert(moved.key.clone(), at);
        }
    }

    /// Looks at `budget` clients, going round, and forgets those that were silent for
    /// [`SILENCE_MAX_MS`].
    pub fn expire(&mut self, now_ms: u64, budget: usize) {
        for _ in 0..budget.min(self.entities.len()) {
            if self.hand >= self.entities.len() {
                self.hand = 0;
            }
            let silent =
                |entity: &Entity<K>| now_ms.saturating_sub(entity.seen_ms) >= SILENCE_MAX_MS;
            if self.entities.get(self.hand).is_some_and(silent) {
                self.remove(self.hand);
            } else {
                self.hand += 1;
            }
        }
    }

    /// Clients known.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entities.len()
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_are_those_of_kafka() {
        let mut quotas = Quotas::new(10);
        let limit = Limit::bytes(500);
        // ClientQuotaManagerTest: 400 a second for eleven seconds is below, a burst of 2300 is not.
        let mut now_ms = 0;
        for _ in 0..10 {
            assert_eq!(quotas.record(&"a", 400, limit, now_ms), 0);
            now_ms += 1000;
        }
        now_ms += 500;
        // 4000 + 2300 in 10.5 s: 600 a second, 100 too many, so 100/500 of the window more.
        assert_eq!(quotas.record(&"a", 2300, limit, now_ms), 2100);
        // There may be more waits until the burst is out of the window.
        now_ms += 2100;
        for _ in 0..10 {
            quotas.record(&"a", 400, limit, now_ms);
            now_ms += 1000;
        }
        assert_eq!(quotas.record(&"a", 0, limit, now_ms), 0);
        assert_eq!(quotas.record(&"b", 0, limit, now_ms), 0, "clients do not share");
    }

    #[test]
    fn a_client_may_use_ten_seconds_worth_at_once_and_no_more() {
        for (amount, wait_ms) in [(5000, 0), (5001, 2), (5500, 1000), (10_000, 10_000)] {
            let mut quotas = Quotas::new(10);
            let limit = Limit::bytes(500);
            assert_eq!(limit.burst(), 5000);
            assert_eq!(quotas.record(&1, amount, limit, 77), wait_ms, "{amount}");
        }
        let mut quotas = Quotas::new(10);
        assert_eq!(quotas.record(&1, 0, Limit::bytes(0), 77), 0);
        let never = Limit { per_second: 0, wait_max_ms: 99 };
        assert_eq!(quotas.record(&1, 1, never, 77), 99);
        assert_eq!(quotas.record(&1, u64::MAX, Limit::bytes(u64::MAX), 77), 0);
        assert_eq!(quotas.record(&1, 0, Limit::bytes(1), 77), u64::from(i32::MAX.unsigned_abs()));
    }

    #[test]
    fn a_thread_is_shared_in_percent_and_waits_are_a_second_at_most() {
        let limit = Limit::request_percentage(1.5);
        assert_eq!(limit.per_second, 15_000_000);
        let mut quotas = Quotas::new(10);
        assert_eq!(quotas.record(&1, 150_000_000, limit, 0), 0);
        assert_eq!(quotas.record(&1, 1_500_000, limit, 0), 100);
        assert_eq!(quotas.record(&1, 1_500_000_000, limit, 0), 1000);
        assert_eq!(Limit::request_percentage(-1.0).per_second, 0);
    }

    #[test]
    fn what_is_taken_back_was_not_used() {
        let mut quotas = Quotas::new(10);
        let limit = Limit::bytes(100);
        assert_eq!(quotas.record(&1, 5000, limit, 0), 40_000);
        quotas.take_back(&1, 5000, 0);
        assert_eq!(quotas.record(&1, 1000, limit, 0), 0);
        quotas.take_back(&2, 5000, 0);
        assert_eq!(quotas.len(), 1);
    }

    #[test]
    fn use_is_forgotten_with_the_window_and_a_client_with_its_silence() {
        let limit = Limit::bytes(1);
        for (later_ms, waits) in [(10_999, true), (11_000, false)] {
            let mut quotas = Quotas::new(10);
            quotas.record(&1, 1000, limit, 5);
            assert_eq!(quotas.record(&1, 1, limit, 5 + later_ms) > 0, waits, "{later_ms}");
        }
        let mut quotas = Quotas::new(10);
        quotas.record(&1, 1, limit, 0);
        quotas.record(&2, 1, limit, 1);
        quotas.expire(SILENCE_MAX_MS - 1, 10);
        assert_eq!(quotas.len(), 2);
        quotas.expire(SILENCE_MAX_MS, 10);
        assert_eq!(quotas.len(), 1);
        quotas.expire(SILENCE_MAX_MS + 1, 0);
        assert_eq!(quotas.len(), 1, "no budget");
        quotas.expire(SILENCE_MAX_MS + 1, 1);
        assert!(quotas.is_empty());
        quotas.expire(SILENCE_MAX_MS + 1, 1);
    }

    #[test]
    fn the_most_silent_goes_when_there_are_too_many() {
        let mut quotas = Quotas::new(2);
        let limit = Limit::bytes(1);
        for (key, now_ms) in [(1, 0), (2, 1), (1, 2)] {
            quotas.record(&key, 100, limit, now_ms);
        }
        assert_eq!(quotas.len(), 2);
        quotas.record(&3, 0, limit, 3);
        assert_eq!(quotas.len(), 2);
        assert!(quotas.record(&1, 0, limit, 4) > 0, "known still");
        assert_eq!(quotas.record(&2, 0, limit, 5), 0, "not known any more");
    }

    proptest! {
        #[test]
        fn a_wait_is_as_long_as_it_must_be(
            uses in prop::collection::vec((0_u64..2500, 0_u64..3000), 1..40),
            per_second in 1_u64..2000,
        ) {
            let (mut quotas, limit) = (Quotas::new(4), Limit::bytes(per_second));
            let (mut now_ms, mut noted) = (0, Vec::new());
            for (pause_ms, amount) in uses {
                now_ms += pause_ms;
                noted.push((now_ms, amount));
                let wait_ms = quotas.record(&0, amount, limit, now_ms);
                // At most what was used within the window and the sample before it counts, at least
                // what was used within it.
                let since = |window: u64| -> u64 {
                    let within = |(at, _): &&(u64, u64)| now_ms - at < window;
                    noted.iter().filter(within).map(|(_, amount)| amount).sum()
                };
                let most = since(WINDOW_MS + SAMPLE_MS) * 1000 / per_second + 1;
                let least = since(WINDOW_MS) * 1000 / per_second;
                prop_assert!(wait_ms <= most.saturating_sub(WINDOW_MIN_MS), "{wait_ms} {most}");
                prop_assert!(wait_ms >= least.saturating_sub(WINDOW_MS + SAMPLE_MS), "{wait_ms} {least}");
            }
        }

        #[test]
        fn places_stay_true_while_clients_come_and_go(
            steps in prop::collection::vec((0_u8..20, 0_u64..2_000_000, 0_usize..4), 0..100),
        ) {
            let mut quotas = Quotas::new(5);
            let mut now_ms = 0;
            for (key, pause_ms, budget) in steps {
                now_ms += pause_ms;
                quotas.record(&key, 1, Limit::bytes(1), now_ms);
                quotas.expire(now_ms, budget);
                prop_assert!(quotas.len() <= 5);
                prop_assert_eq!(quotas.places.len(), quotas.len());
                for (key, at) in &quotas.places {
                    prop_assert_eq!(quotas.entities.get(*at).map(|entity| entity.key), Some(*key));
                }
            }
        }
    }
}
