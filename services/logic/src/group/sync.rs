//! Assignments: the leader gives them, every member gets its own.
//!
//! The leader's assignment is acknowledged after it is stored: [`Groups::sync`] hands out what to store, and
//! [`Groups::stored`] tells the members. Next: `join` for how a generation comes about.

use std::collections::BTreeMap;

use super::{Assigned, Effect, Group, Groups, Member, Refused, State, Timer, Token};

/// What a sync leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// An effect answers it, or has already.
    Parked,
    /// Store the group as [`Group`] describes it with these assignments, then call [`Groups::stored`].
    Store {
        /// Assignments by member.
        assignments: BTreeMap<String, Vec<u8>>,
        /// The generation they are for.
        generation: i32,
    },
}

/// A group as it was stored.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts assignments.
    pub generation: i32,
    /// Kind of group.
    pub protocol_type: String,
    /// The way to assign.
    pub protocol: String,
    /// Who assigns.
    pub leader: String,
    /// Members: id, and what is known of each with one protocol.
    pub members: Vec<(String, StoredMember)>,
    /// When it was stored.
    pub stored_ms: i64,
}

/// A member as it was stored.
#[derive(Clone, Debug)]
pub struct StoredMember {
    /// Set for static members.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Silent for longer, it is gone.
    pub session_ms: i32,
    /// How long a rebalance waits for it.
    pub rebalance_ms: i32,
    /// Metadata for the group's protocol.
    pub metadata: Vec<u8>,
    /// What it is to do.
    pub assignment: Vec<u8>,
}

/// A sync request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The member.
    pub member_id: String,
    /// Its instance.
    pub instance_id: Option<String>,
    /// Its generation.
    pub generation: i32,
    /// Kind of group, when it says so.
    pub protocol_type: Option<String>,
    /// The way to assign, when it says so.
    pub protocol: Option<String>,
    /// From the leader: what each member is to do.
    pub assignments: BTreeMap<String, Vec<u8>>,
}

fn assigned(known: &Group, member: &Member) -> Assigned {
    Assigned {
        protocol_type: known.protocol_type.clone(),
        protocol: known.protocol.clone(),
        assignment: member.assignment.clone(),
    }
}

impl Groups {
    /// Gives or asks for an assignment.
    pub fn sync(
        &mut self,
        group: &str,
        sync: Sync,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> SyncStep {
        match self.try_sync(group, sync, token, now_ms, effects) {
            Ok(step) => step,
            Err(refused) => {
                effects.push(Effect::Synced(token, Err(refused)));
                SyncStep::Parked
            }
        }
    }

    fn try_sync(
        &mut self,
        group: &str,
        sync: Sync,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<SyncStep, Refused> {
        let (id, instance) = (sync.member_id.as_str(), sync.instance_id.as_deref());
        let known = self.known(group)?;
        Self::check_member(known, id, instance)?;
        Self::check_generation(known, sync.generation)?;
        let differs =
            |asked: &Option<String>, known: &str| asked.as_ref().is_some_and(|one| one != known);
        if differs(&sync.protocol_type, &known.protocol_type)
            || differs(&sync.protocol, &known.protocol)
        {
            return Err(Refused::InconsistentGroupProtocol);
        }
        let (state, generation, leads) = (known.state, known.generation, known.leader == id);
        match state {
            State::Empty => return Err(Refused::UnknownMemberId),
            State::PreparingRebalance => return Err(Refused::RebalanceInProgress),
            State::Stable => {
                let member = known.members.get(id).ok_or(Refused::UnknownMemberId)?;
                effects.push(Effect::Synced(token, Ok(assigned(known, member))));
            }
            State::CompletingRebalance => {}
        }
        let known = self.groups.get_mut(group).ok_or(Refused::UnknownMemberId)?;
        let member = known.members.get_mut(id).ok_or(Refused::UnknownMemberId)?;
        member.synced = true;
        if state == State::Stable {
            self.heard(group, id, now_ms);
            return Ok(SyncStep::Parked);
        }
        if let Some(parked) = member.syncing.replace(token) {
            effects.push(Effect::Synced(parked, Err(Refused::UnknownMemberId)));
        }
        self.heard(group, id, now_ms);
        if !leads {
            return Ok(SyncStep::Parked);
        }
        Ok(SyncStep::Store { assignments: sync.assignments, generation })
    }

    /// The leader's assignment was stored, or could not be.
    pub fn stored(
        &mut self,
        group: &str,
        generation: i32,
        assignments: &BTreeMap<String, Vec<u8>>,
        ok: bool,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = self.groups.get_mut(group) else { return };
        if known.state != State::CompletingRebalance || known.generation != generation {
            // Overtaken by another rebalance, which has answered.
            return;
        }
        if !ok {
            for member in known.members.values_mut() {
                if let Some(parked) = member.syncing.take() {
                    effects.push(Effect::Synced(parked, Err(Refused::CoordinatorNotAvailable)));
                }
            }
            return self.rebalance(group, now_ms, effects);
        }
        known.state = State::Stable;
        let mut answered = Vec::new();
        for (id, member) in &mut known.members {
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
            answered.extend(member.syncing.take().map(|token| (token, id.clone())));
        }
        for (token, id) in &answered {
            if let Some(member) = known.members.get(id) {
                effects.push(Effect::Synced(*token, Ok(assigned(known, member))));
            }
        }
        for (_, id) in answered {
            // Sessions do not end while a request is parked; from here on they may.
            self.heard(group, &id, now_ms);
        }
        self.watch_offsets(group, now_ms);
    }

    /// Members that did not sync in time are out, whether the others have their assignments or not.
    pub(super) fn sync_over(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        known.sync_at_ms = None;
        if known.members.values().all(|member| member.synced) {
            return;
        }
        self.discard_where(group, effects, |member| !member.synced);
        self.rebalance(group, now_ms, effects);
    }

    /// A group as it was stored, at a start; its members are given their session to be heard.
    ///
    /// What was stored is taken in however many groups there may be.
    pub fn load(&mut self, group: &str, snapshot: Snapshot, now_ms: i64) {
        self.unload_members(group);
        let known = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(now_ms));
        known.generation = snapshot.generation;
        known.protocol_type = snapshot.protocol_type;
        known.protocol = snapshot.protocol;
        known.empty_since_ms = snapshot.stored_ms;
        known.state = if snapshot.members.is_empty() { State::Empty } else { State::Stable };
        let mut ids = Vec::with_capacity(snapshot.members.len());
        for (id, stored) in snapshot.members {
            let rank = known.next_rank;
            known.next_rank += 1;
            let member = Member {
                instance_id: stored.instance_id,
                client_id: stored.client_id,
                client_host: stored.client_host,
                session_ms: stored.session_ms,
                rebalance_ms: stored.rebalance_ms,
                protocols: vec![(known.protocol.clone(), stored.metadata)],
                assignment: stored.assignment,
                joining: None,
                syncing: None,
                synced: true,
                is_new: false,
                deadline_ms: 0,
                session_at_ms: None,
                rank,
            };
            // A log that others wrote may name one twice.
            known.take(&id);
            known.add(id.clone(), member);
            ids.push(id);
        }
        if known.members.contains_key(&snapshot.leader) {
            known.leader = snapshot.leader;
        }
        for id in ids {
            self.heard(group, &id, now_ms);
        }
        self.watch_offsets(group, now_ms);
    }

    /// A tombstone was found at a start: what is left are offsets, if any.
    pub fn unload(&mut self, group: &str) {
        self.unload_members(group);
        if let Some(known) = self.groups.get_mut(group) {
            known.state = State::Empty;
            known.generation = 0;
            known.protocol_type.clear();
            known.protocol.clear();
            self.drop_if_blank(group);
        }
    }

    fn unload_members(&mut self, group: &str) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let ids: Vec<String> = known.members.keys().rev().cloned().collect();
        for id in ids {
            if let Some(mut member) = known.take(&id) {
                let timer = Timer::Session { group: group.into(), member: id };
                self.deadlines.clear(&mut member.session_at_ms, timer);
            }
        }
    }
}
