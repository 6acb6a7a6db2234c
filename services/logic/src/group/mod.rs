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
//! has one assignment; work per call does not depend on the number of groups. Source: Kafka's GroupMetadataManager,
//! ClassicGroup and OffsetMetadataManager (3.9, 4.0); KIP-62, 134, 211, 345, 394, 814. Next: `join` for membership,
//! `instance` for static members that come back, `sync` for assignments, `offsets` and `expiry` for what is
//! committed, `state` for one group, `deadlines` for what is due.

mod deadlines;
mod expiry;
mod instance;
mod join;
mod offsets;
mod state;
mod sync;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests;

use std::collections::BTreeMap;

use deadlines::{Deadlines, Timer};
pub use instance::Replaced;
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
    /// offsets.retention.check.interval.ms
    pub offsets_check_ms: i64,
}

/// How long a member that does not know its id yet waits for a rebalance; it cannot be heard meanwhile, and may be
/// gone.
const NEW_MEMBER_JOIN_MS: i64 = 5 * 60 * 1000;

impl Default for Config {
    fn default() -> Self {
        Self {
            session_min_ms: 6_000,
            session_max_ms: 1_800_000,
            initial_delay_ms: 3_000,
            members_max: 10_000,
            groups_max: 100_000,
            metadata_max_bytes: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_check_ms: 600_000,
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
    /// A leader understands that it need not assign (KIP-814).
    pub can_skip_assignment: bool,
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
    /// A static member is back under another id: store the group with its members' assignments, then
    /// [`Groups::replaced`].
    Replaced(String, Replaced),
    /// A committed offset is too old: if [`Groups::expires`] still says so, store that it is gone, then
    /// [`Groups::deleted`].
    OffsetExpired(String, TopicPartition),
    /// So is the group: if [`Groups::is_unused`] still says so, store that it is gone, then [`Groups::remove`].
    GroupExpired(String),
}

/// The groups of one shard.
#[derive(Debug)]
pub struct Groups {
    config: Config,
    groups: BTreeMap<String, Group>,
    deadlines: Deadlines,
}

impl Groups {
    /// No groups yet.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, groups: BTreeMap::new(), deadlines: Deadlines::new() }
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
        self.deadlines.next_ms()
    }

    /// Does what is due: at most `budget` things, and no more once they led to as many effects. Whether that was
    /// all.
    pub fn tick(&mut self, now_ms: i64, budget: usize, effects: &mut Vec<Effect>) -> bool {
        let enough = effects.len().saturating_add(budget);
        for _ in 0..budget {
            if effects.len() >= enough {
                break;
            }
            let Some(timer) = self.deadlines.pop(now_ms) else { return true };
            self.fire(timer, now_ms, effects);
        }
        self.deadlines.next_ms().is_none_or(|at_ms| at_ms > now_ms)
    }

    fn fire(&mut self, timer: Timer, now_ms: i64, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Session { group, member } => self.session_over(&group, &member, now_ms, effects),
            Timer::Rebalance { group } => self.rebalance_over(&group, now_ms, effects),
            Timer::Sync { group } => self.sync_over(&group, now_ms, effects),
            Timer::Pending { group, member } => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.pending.remove(&member);
                    self.try_complete(&group, now_ms, effects);
                    self.drop_if_blank(&group);
                }
            }
            Timer::Offsets { group } => self.expire_offsets(&group, now_ms, effects),
        }
    }

    /// Forgets a group that there was no need to know.
    fn drop_if_blank(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Group::is_blank) {
            self.drop_group(group);
        }
    }

    /// Forgets a group without members.
    fn drop_group(&mut self, group: &str) {
        let Some(mut known) = self.groups.remove(group) else { return };
        let name = || group.to_owned();
        self.deadlines.clear(&mut known.offsets_at_ms, Timer::Offsets { group: name() });
        for (member, mut at_ms) in known.pending {
            self.deadlines.clear(&mut at_ms, Timer::Pending { group: name(), member });
        }
    }

    /// Takes back an id that was given out; whether it was.
    fn drop_pending(&mut self, group: &str, member: &str) -> bool {
        let Some(known) = self.groups.get_mut(group) else { return false };
        let Some(mut at_ms) = known.pending.remove(member) else { return false };
        let timer = Timer::Pending { group: group.into(), member: member.into() };
        self.deadlines.clear(&mut at_ms, timer);
        true
    }

    /// The member was heard: it is gone when nothing comes for its session time-out.
    fn heard(&mut self, group: &str, member: &str, now_ms: i64) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let Some(one) = known.members.get_mut(member) else { return };
        let wait_ms = if one.is_new { NEW_MEMBER_JOIN_MS } else { i64::from(one.session_ms) };
        one.deadline_ms = now_ms.saturating_add(wait_ms);
        // A timer that fires early is set anew, so that most signs of life do not touch it.
        if one.session_at_ms.is_none_or(|at_ms| at_ms > one.deadline_ms) {
            let timer = Timer::Session { group: group.into(), member: member.into() };
            self.deadlines.set(&mut one.session_at_ms, one.deadline_ms, timer);
        }
    }

    fn session_over(&mut self, group: &str, member: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let Some(one) = known.members.get_mut(member) else { return };
        one.session_at_ms = None;
        if one.deadline_ms > now_ms {
            let timer = Timer::Session { group: group.into(), member: member.into() };
            return self.deadlines.set(&mut one.session_at_ms, one.deadline_ms, timer);
        }
        if !one.is_new && (one.joining.is_some() || one.syncing.is_some()) {
            // It waits for us.
            return self.heard(group, member, now_ms);
        }
        self.remove_member(group, member, now_ms, effects);
    }

    /// The group that a member's request is about.
    fn known(&self, group: &str) -> Result<&Group, Refused> {
        if group.is_empty() {
            return Err(Refused::InvalidGroupId);
        }
        self.groups.get(group).ok_or(Refused::UnknownMemberId)
    }

    /// Whether the request's member is one of the group.
    fn check_member(
        known: &Group,
        member_id: &str,
        instance_id: Option<&str>,
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
        Ok(())
    }

    const fn check_generation(known: &Group, generation: i32) -> Result<(), Refused> {
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
        let known = self.known(group)?;
        Self::check_member(known, member_id, instance_id)?;
        Self::check_generation(known, generation)?;
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
        let known = self.known(group)?;
        let id = match instance_id {
            // An operator knows the instance only.
            Some(instance) if member_id.is_empty() => {
                known.instances.get(instance).ok_or(Refused::UnknownMemberId)?.clone()
            }
            _ if known.pending.contains_key(member_id) => {
                self.drop_pending(group, member_id);
                self.try_complete(group, now_ms, effects);
                self.drop_if_blank(group);
                return Ok(());
            }
            _ => {
                Self::check_member(known, member_id, instance_id)?;
                member_id.to_owned()
            }
        };
        self.remove_member(group, &id, now_ms, effects);
        Ok(())
    }
}
