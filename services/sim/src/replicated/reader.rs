//! Clients of the replica: what they see of a key must be what a beginning of its operations gives, and never an earlier
//! one than somebody saw before they asked.
//!
//! The order of what a replica shows is promised for the keys of one shard of the master as far as one shard of the replica
//! has them. A master that was started anew begins another *epoch*: from then on its clients' operations follow what it
//! had kept. Invariant: of all that may explain a sight, the earliest is taken, so that nothing is refused that may be.
//! Next: `durable::lane` for beginnings.

use std::collections::BTreeMap;

use engine::rng::Rng;
use wire::resp::Reply;

use super::course::Run;
use super::side::{Words, words};
use crate::durable::lane::Lane;
use crate::durable::peer::{Common, Peer, Shape, group_name, key_name};
use crate::durable::setup::{Doors, topology};
use crate::durable::value::{Kind, Value, read_reply, read_words};
use crate::durable::wire::Wire;
use crate::op::Span;
use crate::shared::show;

/// How soon a reader looks again, at most.
const POLL_NS: u64 = 1_500_000;

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Key(usize, usize),
    Group(usize, usize),
    /// A write, which must be refused.
    Write,
}

/// An answer.
pub(super) struct Sight {
    pub(super) question: Question,
    pub(super) reply: Reply,
    pub(super) span: Span,
    /// What was known when it was asked.
    pub(super) then: Seen,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Another life of the replica begins.
    life: u64,
    epoch: usize,
    /// How many operations of a client's lane, at least, by the shard that has the keys.
    floors: BTreeMap<(usize, usize, u16), usize>,
    /// Of the lanes of each client: what WAIT has told of this epoch. Whoever reads then sees it.
    waited: (usize, Vec<Vec<usize>>),
}

impl Seen {
    /// The replica may hold anything older now.
    pub(super) fn forget(&mut self) {
        *self = Self { life: self.life + 1, ..Self::default() };
    }
}

/// What the clients of a master wrote while it ran.
pub(super) struct Epoch {
    /// By client: lanes of shards, then of groups.
    pub(super) lanes: Vec<Vec<Lane>>,
    pub(super) shards: usize,
}

/// A reader.
pub(super) struct Reader {
    wire: Option<Wire>,
    asked: Option<(Question, u64, Seen)>,
    pub(super) rests: bool,
    pub(super) wake_ns: u64,
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self { wire: None, asked: None, rests: false, wake_ns: u64::MAX }
    }

    pub(super) fn leave(&mut self) {
        (self.wire, self.asked) = (None, None);
    }

    pub(super) fn act(
        &mut self,
        common: &mut Common<'_>,
        rng: &mut Rng,
        (doors, shards): (Doors, usize),
        (shape, seen): (Shape, &Seen),
    ) -> Result<Option<Sight>, String> {
        let now_ns = common.world.now().mono_ns;
        self.wake_ns = now_ns + rng.between(10_000, POLL_NS);
        let Some(wire) = &mut self.wire else {
            let shard = rng.chance(1, 2).then(|| rng.index(shards));
            self.wire = Some(Wire::connect(common.world, doors, shard));
            self.asked = None;
            return Ok(None);
        };
        let (mut replies, goes_on) = wire.pump()?;
        let mut sight = None;
        if let Some(reply) = replies.pop() {
            *common.replies += 1;
            let asked = self.asked.take();
            let (question, lo, then) = asked.ok_or("a reply to nothing")?;
            let span = Span { lo, hi: common.world.now().unix_ms() };
            common.tell(|| format!("reader: {question:?} -> {}", show(&reply)));
            sight = Some(Sight { question, reply, span, then });
        }
        if !goes_on {
            self.leave();
        } else if self.asked.is_none() && !self.rests {
            let (question, words) = draw(rng, shape);
            wire.push(&words);
            self.asked = Some((question, common.world.now().unix_ms(), seen.clone()));
        }
        Ok(sight)
    }
}

fn draw(rng: &mut Rng, shape: Shape) -> (Question, Words) {
    if shape.clients == 0 || rng.chance(1, 40) {
        return (Question::Write, words("SET reader 1"));
    }
    let peer = rng.index(shape.clients);
    if rng.chance(1, 4) {
        let group = rng.index(shape.groups);
        let mut all = words("MGET");
        all.extend((0..shape.group_len).map(|key| group_name(peer, group, key)));
        return (Question::Group(peer, group), all);
    }
    let key = rng.index(shape.keys);
    (Question::Key(peer, key), read_words(Kind::of(key), &key_name(peer, key)))
}

impl Run {
    /// What is known when a reader asks.
    pub(super) fn known(&self) -> Seen {
        let of = |peer: &Peer| peer.lanes.iter().map(|lane| lane.waited).collect();
        let waited = (self.past.len(), self.peers.iter().map(of).collect());
        Seen { waited, ..self.seen.clone() }
    }

    /// Looks whether a reader may have seen this.
    pub(super) fn saw(&mut self, sight: Sight) -> Result<(), String> {
        let Sight { question, reply, span, then } = sight;
        if let Reply::Error(text) = &reply {
            let is_known = [&b"LOADING"[..], b"MASTERDOWN", b"READONLY", b"MISCONF"];
            return match is_known.iter().any(|known| text.starts_with(known)) {
                true => {
                    self.mark("replicated: reads refused");
                    Ok(())
                }
                false => Err(format!("a reader: {question:?} -> {}", show(&reply))),
            };
        }
        let is_now = then.life == self.seen.life;
        let then = if is_now { then } else { Seen::default() };
        match question {
            Question::Write if is_now && !self.takes_over => {
                Err(format!("a replica takes a write: {}", show(&reply)))
            }
            Question::Write => Ok(()),
            Question::Key(peer, key) => {
                self.mark("replicated: keys read");
                let value = read_reply(Kind::of(key), &reply);
                let value = value.ok_or_else(|| format!("{question:?} -> {}", show(&reply)))?;
                let name = key_name(peer, key);
                self.fits((peer, None, key), &name, (&value, span), (&then, is_now))
            }
            Question::Group(peer, group) => {
                self.mark("replicated: groups read");
                let Reply::Array(items) = &reply else {
                    return Err(format!("{question:?} -> {}", show(&reply)));
                };
                let values: Vec<Value> =
                    items.iter().filter_map(|item| read_reply(Kind::Text, item)).collect();
                self.fits_group((peer, group), &values, span, (&then, is_now))
            }
        }
    }

    /// Keys of a group on one shard of the master change together.
    fn fits_group(
        &mut self,
        (peer, group): (usize, usize),
        values: &[Value],
        span: Span,
        how: (&Seen, bool),
    ) -> Result<(), String> {
        let names: Vec<_> = (0..values.len()).map(|key| group_name(peer, group, key)).collect();
        for (name, value) in names.iter().zip(values) {
            self.fits((peer, Some(group), 0), name, (value, span), how)?;
        }
        if !how.1 || self.in_parts {
            return Ok(());
        }
        let owners = topology(self.shards_of_epoch());
        for (at, name) in names.iter().enumerate() {
            let same = |other: &Vec<u8>| owners.owner_of(other) == owners.owner_of(name);
            let first = names.iter().position(same).unwrap_or(at);
            // Where epochs meet, shards were others.
            if values[first] != values[at] && self.past.len() == self.seen.epoch {
                let shown = format!("{:?} and {:?}", values[first], values[at]);
                let shown: String = shown.chars().take(200).collect();
                return Err(format!(
                    "client {peer} group {group}: keys of one shard differ: {shown}"
                ));
            }
        }
        Ok(())
    }

    fn fits(
        &mut self,
        (peer, group, key): (usize, Option<usize>, usize),
        name: &[u8],
        (value, span): (&Value, Span),
        (then, is_now): (&Seen, bool),
    ) -> Result<(), String> {
        let here = topology(self.sides[1 - self.master].shards).owner_of(name);
        for epoch in then.epoch..=self.past.len() {
            let (lanes, shards) = match self.past.get(epoch) {
                Some(past) => (&past.lanes[peer], past.shards),
                None => (&self.peers[peer].lanes, self.shards_of_epoch()),
            };
            let owner = topology(shards).owner_of(name);
            let lane = group.map_or(usize::from(owner), |group| shards + group);
            // A group's keys come as those of their shards do.
            let place = (peer, lane, if group.is_some() { owner | here << 8 } else { here });
            let floor = then.floors.get(&place).copied().unwrap_or(0);
            let floor = if epoch == then.epoch { floor } else { 0 };
            let waited = then.waited.1.get(peer).and_then(|lanes| lanes.get(lane)).copied();
            let waited = waited.filter(|waited| is_now && *waited > 0).unwrap_or(0);
            if waited > 0 && epoch < then.waited.0 {
                continue;
            }
            let floor = if epoch == then.waited.0 { floor.max(waited) } else { floor };
            let Some(lane) = lanes.get(lane) else { continue };
            let Some(cut) = lane.first_cut_from(floor, key, value, span) else { continue };
            if is_now {
                self.seen.note(epoch, place, cut);
            }
            return Ok(());
        }
        let text: String = format!("{value:?}").chars().take(200).collect();
        let lanes = &self.peers[peer].lanes;
        let owner = topology(self.shards_of_epoch()).owner_of(name);
        let at = group.map_or(usize::from(owner), |group| self.shards_of_epoch() + group);
        let any = lanes.get(at).and_then(|lane| lane.first_cut(key, value, span));
        Err(format!(
            "a reader sees {} as {text} between {} and {}: not from epoch {} on, floors {:?}; now it is epoch {} and {any:?} would be",
            name.escape_ascii(),
            span.lo,
            span.hi,
            then.epoch,
            then.floors,
            self.past.len(),
        ))
    }
}

impl Seen {
    fn note(&mut self, epoch: usize, place: (usize, usize, u16), cut: usize) {
        if epoch < self.epoch {
            return;
        }
        if epoch > self.epoch {
            // The replica has what that master gave: all of it.
            self.epoch = epoch;
            self.floors.clear();
        }
        let floor = self.floors.entry(place).or_default();
        *floor = (*floor).max(cut);
    }
}
