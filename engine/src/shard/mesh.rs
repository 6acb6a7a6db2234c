//! The mesh: a bounded ring from every shard to every other, and the rule by which a sleeping
//! shard is woken.
//!
//! Why: shards share nothing, so all traffic between them is messages moved by value. A polled
//! round trip costs about 0.1 µs, a wake-up tens of µs; so messages are published once per turn,
//! and a doorbell is asked for only when the receiver says that it sleeps.
//!
//! The turn of a shard:
//! 1. [`Port::poll`] (or [`Port::receive`]) hands over messages;
//! 2. work calls [`Port::try_send`]; a refused message stays with the caller, who stops reading
//!    from its connection: that is the back-pressure, there is no overflow queue;
//! 3. [`Port::flush`] publishes and names the shards whose doorbell must be rung now;
//! 4. with nothing left to do, [`Port::park`]; only if it says so the shard may sleep, and calls
//!    [`Port::unpark`] when it wakes, for whatever reason.
//!
//! Invariants: no wake-up is lost. The receiver stores its flag, fences, then looks at the rings;
//! the sender stores to the ring, fences, then looks at the flag: one of the two sees the other.
//! The same holds for room in a full ring, with the roles exchanged. Nothing here waits or spins,
//! so all shards may live on one thread, as they do in the simulation.
//!
//! Next: `ring` is one ring; `tests` explores every order of the steps above.

mod ring;
#[cfg(test)]
mod tests;

pub use ring::{CAPACITY_MAX, Consumer, Producer, ring};

use ring::Padded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The largest mesh: memory grows with the square of the shards.
pub const SHARDS_MAX: usize = 1024;

/// One flag per shard: it sleeps, or is about to, and wants a doorbell.
type Parked = Arc<[Padded<AtomicBool>]>;

/// Builds the mesh of `shards` shards: element `k` goes to shard `k`. Each ordered pair gets a ring
/// for `capacity` messages.
///
/// # Panics
/// If `shards` is zero or above [`SHARDS_MAX`], or `capacity` is zero or above [`CAPACITY_MAX`].
#[must_use]
pub fn mesh<T: Send>(shards: usize, capacity: usize) -> Vec<Port<T>> {
    assert!((1..=SHARDS_MAX).contains(&shards), "mesh of {shards} shards: 1 to {SHARDS_MAX}");
    let parked: Parked = (0..shards).map(|_| Padded::default()).collect();
    let mut producers: Vec<Vec<_>> = (0..shards).map(|_| Vec::with_capacity(shards)).collect();
    let mut consumers: Vec<Vec<_>> = (0..shards).map(|_| Vec::with_capacity(shards)).collect();
    for (from, outgoing) in producers.iter_mut().enumerate() {
        for (to, incoming) in consumers.iter_mut().enumerate() {
            let ends = (from != to).then(|| ring(capacity));
            let (producer, consumer) = ends.map_or((None, None), |(p, c)| (Some(p), Some(c)));
            outgoing.push(producer);
            incoming.push(consumer);
        }
    }
    let ends = producers.into_iter().zip(consumers);
    ends.enumerate()
        .map(|(shard, (outgoing, incoming))| {
            let lanes = outgoing.into_iter().zip(incoming).map(|(producer, consumer)| {
                Some(Lane {
                    outgoing: producer?,
                    incoming: consumer?,
                    unflushed: false,
                    released: false,
                    refused: false,
                })
            });
            Port {
                shard,
                lanes: lanes.collect(),
                parked: Arc::clone(&parked),
                next: 0,
                unflushed: Vec::with_capacity(shards),
                released: Vec::with_capacity(shards),
                doorbells: Vec::with_capacity(shards),
                stats: Stats::default(),
            }
        })
        .collect()
}

/// Both directions between this shard and one other.
#[derive(Debug)]
struct Lane<T> {
    outgoing: Producer<T>,
    incoming: Consumer<T>,
    /// Listed in `Port::unflushed`.
    unflushed: bool,
    /// Listed in `Port::released`.
    released: bool,
    /// The last send was refused, and room has not been seen since.
    refused: bool,
}

/// Plain counts since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages accepted by [`Port::try_send`].
    pub sent: u64,
    /// Messages handed out.
    pub received: u64,
    /// Messages refused because the ring was full.
    pub refused: u64,
    /// Doorbells asked for.
    pub doorbells: u64,
    /// Times [`Port::park`] allowed to sleep.
    pub parks: u64,
}

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct Port<T> {
    shard: usize,
    /// By shard; none for this one.
    lanes: Vec<Option<Lane<T>>>,
    parked: Parked,
    /// The shard to poll first.
    next: usize,
    /// Shards with messages that were not published, or a doorbell to try again.
    unflushed: Vec<usize>,
    /// Shards whose slots were given back since the last flush.
    released: Vec<usize>,
    /// What the last flush returned.
    doorbells: Vec<usize>,
    stats: Stats,
}

impl<T> Port<T> {
    /// The shard this port belongs to.
    #[must_use]
    pub const fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards the mesh joins.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.lanes.len()
    }

    /// Counts since start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Queues `message` for shard `to`; it leaves with the next [`Port::flush`].
    ///
    /// # Errors
    /// Gives the message back when `to` is behind. After that [`Port::park`] and the receiver see
    /// to it that this shard is awake when there is room again; then try once more.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    #[inline]
    pub fn try_send(&mut self, to: usize, message: T) -> Result<(), T> {
        let lane = lane(&mut self.lanes, to);
        if let Err(message) = lane.outgoing.push(message) {
            // Once until room is seen: whoever tries again must not fight over the flag's line.
            if !lane.refused {
                lane.refused = true;
                lane.outgoing.starve();
            }
            self.stats.refused += 1;
            return Err(message);
        }
        lane.refused = false;
        if !lane.unflushed {
            lane.unflushed = true;
            self.unflushed.push(to);
        }
        self.stats.sent += 1;
        Ok(())
    }

    /// How many more messages shard `to` takes now.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    pub fn credits(&mut self, to: usize) -> usize {
        lane(&mut self.lanes, to).outgoing.credits()
    }

    /// Publishes what was sent and returns the shards to wake. Each of them sleeps until its
    /// doorbell is rung, so ring all of them; see [`Port::retry_doorbell`] if one cannot be rung.
    #[inline]
    #[must_use = "these shards sleep until their doorbell is rung"]
    pub fn flush(&mut self) -> &[usize] {
        self.doorbells.clear();
        if self.unflushed.is_empty() && self.released.is_empty() {
            return &self.doorbells;
        }
        self.publish();
        self.find_sleepers();
        &self.doorbells
    }

    /// First half of a flush: the messages become visible.
    fn publish(&mut self) {
        for &to in &self.unflushed {
            lane(&mut self.lanes, to).outgoing.publish();
        }
        for &from in &self.released {
            lane(&mut self.lanes, from).incoming.release();
        }
    }

    /// Second half of a flush: who must be told?
    fn find_sleepers(&mut self) {
        // Between our stores to the rings and our loads of the flags; pairs with `announce`.
        fence(Ordering::SeqCst);
        for to in self.unflushed.drain(..) {
            lane(&mut self.lanes, to).unflushed = false;
            if claim(&self.parked[to].0) {
                self.doorbells.push(to);
            }
        }
        for from in self.released.drain(..) {
            let lane = lane(&mut self.lanes, from);
            lane.released = false;
            if lane.incoming.take_starved() && claim(&self.parked[from].0) {
                self.doorbells.push(from);
            }
        }
        self.stats.doorbells += self.doorbells.len() as u64;
    }

    /// The doorbell of shard `to`, returned by the last flush, could not be rung: the next flush
    /// returns it again, unless somebody else woke the shard.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    pub fn retry_doorbell(&mut self, to: usize) {
        let lane = lane(&mut self.lanes, to);
        if !lane.unflushed {
            lane.unflushed = true;
            self.unflushed.push(to);
        }
        // If it woke up meanwhile, the cost is one needless doorbell.
        self.parked[to].0.store(true, Ordering::Relaxed);
    }

    /// Hands up to `max` messages to `f(from, message)`, a fair share from each shard. How many.
    pub fn poll(&mut self, max: usize, mut f: impl FnMut(usize, T)) -> usize {
        let shards = self.lanes.len();
        let share = (max / shards).max(1);
        let mut left = max;
        loop {
            let before = left;
            for step in 0..shards {
                let from = (self.next + step) % shards;
                let Some(lane) = &mut self.lanes[from] else {
                    continue;
                };
                let count = lane.incoming.pop_batch(share.min(left), |message| f(from, message));
                left -= count;
                if count > 0 && !lane.released {
                    lane.released = true;
                    self.released.push(from);
                }
            }
            if left == 0 || left == before {
                break;
            }
        }
        self.next = (self.next + 1) % shards;
        self.stats.received += (max - left) as u64;
        max - left
    }

    /// The next message and its sender, one from each shard in turn; for callers that send while
    /// they receive.
    pub fn receive(&mut self) -> Option<(usize, T)> {
        let shards = self.lanes.len();
        for step in 0..shards {
            let from = (self.next + step) % shards;
            let Some(lane) = &mut self.lanes[from] else {
                continue;
            };
            let Some(message) = lane.incoming.pop() else {
                continue;
            };
            if !lane.released {
                lane.released = true;
                self.released.push(from);
            }
            // The flush gives the slots back; do not let the sender run dry before it.
            if lane.incoming.unreleased() * 2 >= lane.incoming.capacity() {
                lane.incoming.release();
            }
            self.next = (from + 1) % shards;
            self.stats.received += 1;
            return Some((from, message));
        }
        None
    }

    /// Whether a message waits.
    pub fn has_incoming(&mut self) -> bool {
        self.lanes.iter_mut().flatten().any(|lane| !lane.incoming.is_empty())
    }

    /// How many messages from shard `from` wait.
    ///
    /// # Panics
    /// If `from` is this shard or none.
    pub fn depth(&mut self, from: usize) -> usize {
        lane(&mut self.lanes, from).incoming.len()
    }

    /// Says that this shard is about to sleep. `true`: it may, every later message brings a
    /// doorbell. `false`: there is work (a message, room after a refusal, or something to flush);
    /// take another turn.
    #[must_use = "sleeping after `false` loses a wake-up"]
    pub fn park(&mut self) -> bool {
        if !self.unflushed.is_empty() || !self.released.is_empty() {
            return false;
        }
        self.announce();
        let quiet = self.is_quiet();
        if quiet {
            self.stats.parks += 1;
        } else {
            self.unpark();
        }
        quiet
    }

    /// First half of parking: everybody may see that we sleep.
    fn announce(&self) {
        self.parked[self.shard].0.store(true, Ordering::Relaxed);
        // Between our store of the flag and our loads of the rings; pairs with `find_sleepers`.
        fence(Ordering::SeqCst);
    }

    /// Second half of parking: did anything arrive before they could see it?
    fn is_quiet(&mut self) -> bool {
        let mut quiet = true;
        for lane in self.lanes.iter_mut().flatten() {
            quiet &= lane.incoming.is_empty();
            if lane.refused && lane.outgoing.credits() > 0 {
                lane.refused = false;
                quiet = false;
            }
        }
        quiet
    }

    /// This shard is awake: no doorbell is needed.
    pub fn unpark(&mut self) {
        self.parked[self.shard].0.store(false, Ordering::Relaxed);
    }
}

/// The lane to or from `shard`.
#[inline]
fn lane<T>(lanes: &mut [Option<Lane<T>>], shard: usize) -> &mut Lane<T> {
    match lanes.get_mut(shard) {
        Some(Some(lane)) => lane,
        _ => panic!("no lane to shard {shard}: it is this shard, or not in the mesh"),
    }
}

/// Takes the duty to wake a parked shard; of several senders one gets it.
fn claim(parked: &AtomicBool) -> bool {
    parked.load(Ordering::Relaxed) && parked.swap(false, Ordering::AcqRel)
}
