//! Consumer groups by the classic protocol: who is a member, which generation, who is assigned what.
//!
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable
//!              ^        |   ^________________|            |
//!              |________v_________________________________|
//! ```
//! Members join and wait until all have; then the leader assigns and every member gets its part. Rules are those of
//! Kafka's GroupCoordinator. A request that has to wait is *parked* under a token of the caller's and answered by
//! an [`Effect`] later. Invariants: no clock; a parked token is answered once; a generation
//! has one assignment; work per call does not depend on the number of groups. Next: `join` for membership,
//! `sync` for assignments, `offsets` for what is committed, `state` for one group.

mod join;
mod offsets;
mod state;
mod sync;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use offsets::{Commit, Committed, TopicPartition};
pub use state::{Group, Member, State};
pub use sync::{Snapshot, StoredMember, Sync, SyncStep};

/// Bounds and times of groups, with Kafka's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// group.min.session.timeout.ms
    pub session_min_ms: i32,
    /// group.max.session.timeout.ms
    pub session_max_ms: i32,
    /// group.initial.rebalance.delay.ms: how long an empty group waits for more members.
    pub initial_delay_ms: i64,
    /// group.max.size
    pub members_max: usize,
    /// Groups at a time.
    pub groups_max: usize,
    /// offset.metadata.max.bytes
    pub metadata_max_bytes: usize,
    /// offsets.retention.minutes, in milliseconds.
    pub offsets_retention_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_min_ms: 6_000,
            session_max_ms: 1_800_000,
            initial_delay_ms: 0,
            members_max: 10_000,
            groups_max: 100_000,
            metadata_max_bytes: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
        }
    }
}

/// Why a request is refused; numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Metadata of an offset is too long.
    OffsetMetadataTooLarge = 12,
    /// There are as many groups as can be.
    CoordinatorNotAvailable = 15,
    /// Another generation is current.
    IllegalGeneration = 22,
    /// The protocols do not fit the group's.
    InconsistentGroupProtocol = 23,
    /// The group's id is empty.
    InvalidGroupId = 24,
    /// No such member.
    UnknownMemberId = 25,
    /// The session time-out is out of bounds.
    InvalidSessionTimeout = 26,
    /// Join again.
    RebalanceInProgress = 27,
    /// The group has members.
    NonEmptyGroup = 68,
    /// No such group.
    GroupIdNotFound = 69,
    /// Join again with the id given.
    MemberIdRequired = 79,
    /// The group is full.
    GroupMaxSizeReached = 81,
    /// Another member has taken the instance's place.
    FencedInstanceId = 82,
    /// A member consumes the topic.
    GroupSubscribedToTopic = 86,
}

impl Refused {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }
}

/// The caller's mark on a parked request.
pub type Token = u64;

/// A wish to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: String,
    /// Empty for a new member.
    pub member_id: String,
    /// Names a static member.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// It is gone when silent for longer.
    pub session_ms: i32,
    /// How long a rebalance waits for it.
    pub rebalance_ms: i32,
    /// Kind of group; opaque.
    pub protocol_type: String,
    /// Ways to assign it knows, best first, each with opaque metadata.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// A new member has to come again with the id it is given (KIP-394).
    pub requires_known_id: bool,
    /// Part of a new member's id; unique.
    pub unique: String,
}

/// A member of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// Kind of group.
    pub protocol_type: String,
    /// The way to assign that was chosen.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// The member's id.
    pub member_id: String,
    /// For the leader: all members with instance and metadata.
    pub members: Vec<(String, Option<String>, Vec<u8>)>,
    /// The leader need not assign anew (KIP-814).
    pub skip_assignment: bool,
}

/// What a member is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Kind of group.
    pub protocol_type: String,
    /// The way it was assigned.
    pub protocol: String,
    /// Opaque.
    pub assignment: Vec<u8>,
}

/// An answer to a parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To a join; a refusal comes with the member id to say back.
    Joined(Token, Result<Joined, (Refused, String)>),
    /// To a sync.
    Synced(Token, Result<Assigned, Refused>),
    /// The group became empty in a new generation: worth a record.
    Changed(String),
    /// A committed offset is too old: store that it is gone, then [`Groups::deleted`].
    OffsetExpired(String, TopicPartition),
    /// So is the group: store that it is gone, then [`Groups::remove`].
    GroupExpired(String),
}

/// What happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The member may have been silent for too long.
    Session { group: String, member: String },
    /// Whoever has not joined this rebalance is out.
    Rebalance { group: String, round: u64 },
    /// Whoever has not synced this generation is out.
    Sync { group: String, generation: i32 },
    /// An id that was given out was not used.
    Pending { group: String, member: String },
    /// Offsets of an empty group may be too old.
    Offsets { group: String },
}

/// The groups of one shard.
#[derive(Debug)]
pub struct Groups {
    config: Config,
    groups: BTreeMap<String, Group>,
    timers: BTreeSet<(i64, Timer)>,
    next_round: u64,
}

impl Groups {
    /// No groups yet.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, groups: BTreeMap::new(), timers: BTreeSet::new(), next_round: 0 }
    }

    /// A group.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&Group> {
        self.groups.get(group)
    }

    /// All groups by id.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Group)> {
        self.groups.iter()
    }

    /// When [`Groups::tick`] has something to do.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due, at most `budget` things; whether that was all.
    pub fn tick(&mut self, now_ms: i64, budget: usize, effects: &mut Vec<Effect>) -> bool {
        for _ in 0..budget {
            match self.timers.first() {
                Some((at, _)) if *at <= now_ms => {}
                _ => return true,
            }
            if let Some((_, timer)) = self.timers.pop_first() {
                self.fire(timer, now_ms, effects);
            }
        }
        false
    }

    fn fire(&mut self, timer: Timer, now_ms: i64, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Session { group, member } => self.session_over(&group, &member, now_ms, effects),
            Timer::Rebalance { group, round } => {
                self.rebalance_over(&group, round, now_ms, effects)
            }
            Timer::Sync { group, generation } => {
                self.sync_over(&group, generation, now_ms, effects)
            }
            Timer::Pending { group, member } => {
                if let Some(known) = self.groups.get_mut(&group)
                    && known.pending.remove(&member).is_some()
                {
                    self.try_complete(&group, now_ms, effects);
                }
            }
            Timer::Offsets { group } => self.expire_offsets(&group, now_ms, effects),
        }
    }

    fn set_timer(&mut self, at_ms: i64, timer: Timer) {
        self.timers.insert((at_ms, timer));
    }

    /// The member was heard: it is gone when nothing comes for its session time-out.
    fn heard(&mut self, group: &str, member: &str, now_ms: i64) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let Some(one) = known.members.get_mut(member) else { return };
        one.deadline_ms = now_ms.saturating_add(i64::from(one.session_ms));
        // One timer each; when it fires early it is set anew.
        if !std::mem::replace(&mut one.has_timer, true) {
            let at = one.deadline_ms;
            let timer = Timer::Session { group: group.into(), member: member.into() };
            self.set_timer(at, timer);
        }
    }

    fn session_over(&mut self, group: &str, member: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let Some(one) = known.members.get_mut(member) else { return };
        one.has_timer = false;
        if one.joining.is_some() || one.syncing.is_some() {
            // It waits for us.
            self.heard(group, member, now_ms);
            return;
        }
        if one.deadline_ms > now_ms {
            let at = one.deadline_ms;
            one.has_timer = true;
            let timer = Timer::Session { group: group.into(), member: member.into() };
            return self.set_timer(at, timer);
        }
        self.remove_member(group, member, now_ms, effects);
    }

    /// Whether the request's member is one of the group and generation. A negative `generation` asks for
    /// neither.
    fn check_member(
        known: &Group,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), Refused> {
        if let Some(instance) = instance_id {
            match known.instances.get(instance) {
                Some(id) if id == member_id => {}
                Some(_) => return Err(Refused::FencedInstanceId),
                None => return Err(Refused::UnknownMemberId),
            }
        }
        if !known.members.contains_key(member_id) {
            return Err(Refused::UnknownMemberId);
        }
        if generation != known.generation {
            return Err(Refused::IllegalGeneration);
        }
        Ok(())
    }

    /// A sign of life.
    ///
    /// # Errors
    /// The member is none of the generation, or has to join again.
    pub fn heartbeat(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now_ms: i64,
    ) -> Result<(), Refused> {
        let known = self.groups.get(group).ok_or(Refused::UnknownMemberId)?;
        Self::check_member(known, member_id, instance_id, generation)?;
        let state = known.state;
        self.heard(group, member_id, now_ms);
        match state {
            State::Empty => Err(Refused::UnknownMemberId),
            State::PreparingRebalance => Err(Refused::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A member's end, by its id or by the instance alone.
    ///
    /// # Errors
    /// There is no such member.
    pub fn leave(
        &mut self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(group).ok_or(Refused::UnknownMemberId)?;
        let id = match instance_id {
            Some(instance) => {
                let id = known.instances.get(instance).ok_or(Refused::UnknownMemberId)?;
                if !member_id.is_empty() && id != member_id {
                    return Err(Refused::FencedInstanceId);
                }
                id.clone()
            }
            None => member_id.to_owned(),
        };
        if known.pending.remove(&id).is_some() {
            self.try_complete(group, now_ms, effects);
            return Ok(());
        }
        if !known.members.contains_key(&id) {
            return Err(Refused::UnknownMemberId);
        }
        self.remove_member(group, &id, now_ms, effects);
        Ok(())
    }
}
