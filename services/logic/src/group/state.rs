//! One group and its members.

use std::collections::BTreeMap;

use super::offsets::{Committed, TopicPartition};
use super::{Joined, Token};

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; offsets perhaps.
    Empty,
    /// Members are to join.
    PreparingRebalance,
    /// Members have joined; the leader is to assign.
    CompletingRebalance,
    /// Everybody has its assignment.
    Stable,
}

impl State {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Set for static members.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// It is gone when silent for longer.
    pub session_ms: i32,
    /// How long a rebalance waits for it.
    pub rebalance_ms: i32,
    /// Ways to assign it knows, best first, each with its metadata.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// What it is to do.
    pub assignment: Vec<u8>,
    pub(super) joining: Option<Token>,
    pub(super) syncing: Option<Token>,
    pub(super) deadline_ms: i64,
    pub(super) has_timer: bool,
    /// Order of joining.
    pub(super) rank: u64,
}

impl Member {
    /// Its metadata for a way to assign.
    #[must_use]
    pub fn metadata(&self, protocol: &str) -> &[u8] {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or(&[], |(_, metadata)| metadata)
    }
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Where it is.
    pub state: State,
    /// Counts assignments.
    pub generation: i32,
    /// Kind of group; empty when it never had members.
    pub protocol_type: String,
    /// The way to assign that was chosen.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// Members by id.
    pub members: BTreeMap<String, Member>,
    /// Static members by instance.
    pub(super) instances: BTreeMap<String, String>,
    /// Ids that were given out and not used yet.
    pub(super) pending: BTreeMap<String, ()>,
    /// What was committed.
    pub offsets: BTreeMap<TopicPartition, Committed>,
    /// Since when it has no members.
    pub(super) empty_since_ms: i64,
    /// The rebalance that timers refer to.
    pub(super) round: u64,
    /// While an empty group waits for more members: the time left, and whether one came.
    pub(super) initial: Option<Initial>,
    pub(super) next_rank: u64,
    /// A timer looks after its offsets.
    pub(super) watched: bool,
}

/// An empty group that waits for more members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Initial {
    pub(super) left_ms: i64,
    pub(super) grew: bool,
}

impl Group {
    pub(super) const fn new(now_ms: i64) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            offsets: BTreeMap::new(),
            empty_since_ms: now_ms,
            round: 0,
            initial: None,
            next_rank: 0,
            watched: false,
        }
    }

    /// Whether members with these protocols fit the group.
    pub(super) fn fits(&self, protocol_type: &str, protocols: &[(String, Vec<u8>)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type == protocol_type
            && protocols.iter().any(|(name, _)| self.is_known_to_all(name))
    }

    fn is_known_to_all(&self, protocol: &str) -> bool {
        let knows = |member: &Member| member.protocols.iter().any(|(name, _)| name == protocol);
        self.members.values().all(knows)
    }

    /// The way to assign that most members like best among those that all know.
    pub(super) fn vote(&self) -> String {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let best = member.protocols.iter().find(|(name, _)| self.is_known_to_all(name));
            if let Some((name, _)) = best {
                *votes.entry(name).or_default() += 1;
            }
        }
        let winner =
            votes.into_iter().max_by_key(|(name, count)| (*count, std::cmp::Reverse(*name)));
        winner.map_or_else(String::new, |(name, _)| name.to_owned())
    }

    /// How long a rebalance waits for members.
    pub(super) fn rebalance_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_ms)).max().unwrap_or(0)
    }

    /// What a member learns of the generation.
    pub(super) fn joined(&self, member_id: &str) -> Joined {
        let members = if self.leader == member_id {
            let mut members: Vec<(&String, &Member)> = self.members.iter().collect();
            members.sort_by_key(|(_, member)| member.rank);
            let described = members.into_iter().map(|(id, member)| {
                (id.clone(), member.instance_id.clone(), member.metadata(&self.protocol).to_vec())
            });
            described.collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member_id: member_id.to_owned(),
            members,
            skip_assignment: false,
        }
    }
}
