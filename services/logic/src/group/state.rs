//! One group and its members.
//!
//! Invariants: who waits to join and which protocols all members know is counted as members come, change and go, so
//! members are added, taken and changed through the functions here only; joining costs nothing in proportion to
//! their number.

use std::collections::{BTreeMap, BTreeSet};

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
    /// It has asked for its assignment of this generation.
    pub(super) synced: bool,
    /// It does not know its id yet, so that it cannot be heard.
    pub(super) is_new: bool,
    pub(super) deadline_ms: i64,
    /// When that is looked at; perhaps earlier.
    pub(super) session_at_ms: Option<i64>,
    /// Order of joining.
    pub(super) rank: u64,
}

impl Member {
    fn protocol_names(&self) -> BTreeSet<&str> {
        self.protocols.iter().map(|(name, _)| name.as_str()).collect()
    }

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
    /// Ids that were given out and not used yet, and when they are void.
    pub(super) pending: BTreeMap<String, Option<i64>>,
    /// What was committed.
    pub offsets: BTreeMap<TopicPartition, Committed>,
    /// Commits that are being stored.
    pub(super) staged: BTreeMap<TopicPartition, u32>,
    /// Since when it has no members.
    pub(super) empty_since_ms: i64,
    /// Members whose join is parked.
    pub(super) awaiting: usize,
    /// How many members know each protocol.
    protocols_known: BTreeMap<String, usize>,
    pub(super) rebalance_at_ms: Option<i64>,
    pub(super) sync_at_ms: Option<i64>,
    pub(super) offsets_at_ms: Option<i64>,
    /// How far the offsets have been looked at, and when the first of those is too old.
    pub(super) looked: Looked,
    /// While an empty group waits for more members: the time left, and whether one came.
    pub(super) initial: Option<Initial>,
    pub(super) next_rank: u64,
}

/// A pass over the offsets of a group.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) upto: Option<TopicPartition>,
    pub(super) next_ms: i64,
}

impl Looked {
    pub(super) const NOTHING: Self = Self { upto: None, next_ms: i64::MAX };
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
            staged: BTreeMap::new(),
            empty_since_ms: now_ms,
            awaiting: 0,
            protocols_known: BTreeMap::new(),
            rebalance_at_ms: None,
            sync_at_ms: None,
            offsets_at_ms: None,
            looked: Looked::NOTHING,
            initial: None,
            next_rank: 0,
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
        self.protocols_known.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    fn count_protocols(&mut self, member: &Member) {
        for name in member.protocol_names() {
            *self.protocols_known.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn discount_protocols(&mut self, member: &Member) {
        for name in member.protocol_names() {
            if let Some(count) = self.protocols_known.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocols_known.remove(name);
                }
            }
        }
    }

    /// Adds a member under an id that nobody has.
    pub(super) fn add(&mut self, id: String, member: Member) {
        self.count_protocols(&member);
        self.awaiting += usize::from(member.joining.is_some());
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.leader.is_empty() {
            self.leader.clone_from(&id);
        }
        self.members.insert(id, member);
    }

    /// Takes a member out; the caller looks after its timer and its parked requests.
    pub(super) fn take(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.discount_protocols(&member);
        self.awaiting -= usize::from(member.joining.is_some());
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|known| known == id)
        {
            self.instances.remove(instance);
        }
        if self.leader == id {
            let next = self.members.iter().min_by_key(|(_, member)| member.rank);
            self.leader = next.map_or_else(String::new, |(id, _)| id.clone());
        }
        Some(member)
    }

    /// Parks a member's join; the token of one that was parked before.
    pub(super) fn park_join(&mut self, id: &str, token: Token) -> Option<Token> {
        let before = self.members.get_mut(id)?.joining.replace(token);
        self.awaiting += usize::from(before.is_none());
        before
    }

    /// Takes a member's parked join.
    pub(super) fn unpark_join(&mut self, id: &str) -> Option<Token> {
        let token = self.members.get_mut(id)?.joining.take();
        self.awaiting -= usize::from(token.is_some());
        token
    }

    /// Gives a member other protocols.
    pub(super) fn set_protocols(&mut self, id: &str, protocols: Vec<(String, Vec<u8>)>) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.discount_protocols(&member);
        member.protocols = protocols;
        self.count_protocols(&member);
        self.members.insert(id.to_owned(), member);
    }

    /// Whether everybody who is expected has joined.
    pub(super) fn all_joined(&self) -> bool {
        self.awaiting == self.members.len() && self.pending.is_empty()
    }

    /// Whether nothing would be lost with it: it was never stored, and nobody is there.
    pub(super) fn is_blank(&self) -> bool {
        self.generation == 0 && self.state == State::Empty && self.is_unused()
    }

    /// Whether nobody is there or about to be, and nothing is committed.
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.staged.is_empty()
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

    /// Recounts what is counted.
    #[cfg(test)]
    pub(super) fn check_counts(&self) {
        let awaiting = self.members.values().filter(|member| member.joining.is_some()).count();
        assert_eq!(self.awaiting, awaiting);
        let mut known = BTreeMap::new();
        for name in self.members.values().flat_map(Member::protocol_names) {
            *known.entry(name.to_owned()).or_insert(0) += 1;
        }
        assert_eq!(self.protocols_known, known);
        let fixed = self
            .members
            .iter()
            .filter_map(|(id, one)| Some((one.instance_id.clone()?, id.clone())));
        assert_eq!(self.instances, fixed.collect());
        assert_eq!(self.leader.is_empty(), self.members.is_empty());
        assert!(self.members.contains_key(&self.leader) || self.leader.is_empty());
    }
}
