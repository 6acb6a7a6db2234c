//! Membership: joining, the rebalance that follows, and leaving.

use super::state::{Initial, Member};
use super::{Effect, Group, Groups, Join, Refused, State, Timer, Token};

impl Groups {
    /// A wish to be a member; answered by an effect, perhaps at once.
    pub fn join(&mut self, join: Join, token: Token, now_ms: i64, effects: &mut Vec<Effect>) {
        let member_id = join.member_id.clone();
        if let Err(refused) = self.try_join(join, token, now_ms, effects) {
            let full = refused == Refused::GroupMaxSizeReached;
            let member_id = if full { String::new() } else { member_id };
            effects.push(Effect::Joined(token, Err((refused, member_id))));
        }
    }

    fn try_join(
        &mut self,
        join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        if join.group.is_empty() {
            return Err(Refused::InvalidGroupId);
        }
        if !(self.config.session_min_ms..=self.config.session_max_ms).contains(&join.session_ms) {
            return Err(Refused::InvalidSessionTimeout);
        }
        let Some(known) = self.groups.get(&join.group) else {
            return self.join_first(join, token, now_ms, effects);
        };
        if !self.has_room(known, &join) {
            // The last of those that join again may find no room.
            self.drop_pending(&join.group, &join.member_id);
            self.remove_member(&join.group, &join.member_id, now_ms, effects);
            return Err(Refused::GroupMaxSizeReached);
        }
        if !known.fits(&join.protocol_type, &join.protocols) {
            return Err(Refused::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            return self.join_new(join, token, now_ms, effects);
        }
        if join.instance_id.is_none() && self.drop_pending(&join.group, &join.member_id) {
            return self.add_member(join, token, now_ms, effects);
        }
        self.join_again(join, token, now_ms, effects)
    }

    /// Joins a group that is not there; it stays away if it would be refused.
    fn join_first(
        &mut self,
        join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        if !join.member_id.is_empty() {
            return Err(Refused::UnknownMemberId);
        }
        let group = Group::new(now_ms);
        if !group.fits(&join.protocol_type, &join.protocols) {
            return Err(Refused::InconsistentGroupProtocol);
        }
        if !self.has_room(&group, &join) {
            return Err(Refused::GroupMaxSizeReached);
        }
        self.check_groups()?;
        self.groups.insert(join.group.clone(), group);
        self.join_new(join, token, now_ms, effects)
    }

    /// Whether one more group may be there.
    pub(super) fn check_groups(&self) -> Result<(), Refused> {
        if self.groups.len() >= self.config.groups_max {
            return Err(Refused::CoordinatorNotAvailable);
        }
        Ok(())
    }

    /// Whether there is room for who joins. In a rebalance those that have joined again count, since the others may
    /// be gone.
    fn has_room(&self, known: &Group, join: &Join) -> bool {
        let member = known.members.get(&join.member_id);
        let comes_back =
            join.instance_id.as_ref().is_some_and(|one| known.instances.contains_key(one));
        let max = self.config.members_max;
        let has_place = match known.state {
            State::Empty => max > 0,
            State::PreparingRebalance => {
                known.awaiting < max || member.is_some_and(|member| member.joining.is_some())
            }
            State::CompletingRebalance | State::Stable => {
                known.members.len() < max || member.is_some()
            }
        };
        let needs_id = join.member_id.is_empty() && join.requires_known_id;
        comes_back || (has_place && (!needs_id || known.pending.len() < max))
    }

    fn join_new(
        &mut self,
        mut join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        let stem = join.instance_id.as_ref().unwrap_or(&join.client_id);
        join.member_id = format!("{stem}-{}", join.unique);
        match &join.instance_id {
            Some(instance) => match known.instances.get(instance).cloned() {
                Some(old) => self.replace(join, &old, token, now_ms, effects),
                None => self.add_member(join, token, now_ms, effects),
            },
            None if join.requires_known_id => {
                let void_ms = now_ms.saturating_add(i64::from(join.session_ms));
                let at_ms = known.pending.entry(join.member_id.clone()).or_default();
                let timer = Timer::Pending { group: join.group, member: join.member_id.clone() };
                self.deadlines.set(at_ms, void_ms, timer);
                let refused = (Refused::MemberIdRequired, join.member_id);
                effects.push(Effect::Joined(token, Err(refused)));
                Ok(())
            }
            None => self.add_member(join, token, now_ms, effects),
        }
    }

    fn add_member(
        &mut self,
        join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        if let Some(initial) = &mut known.initial {
            initial.grew = true;
        }
        if known.members.is_empty() {
            known.protocol_type.clone_from(&join.protocol_type);
        }
        let rank = known.next_rank;
        known.next_rank += 1;
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_ms: join.session_ms,
            rebalance_ms: join.rebalance_ms,
            protocols: join.protocols,
            assignment: Vec::new(),
            joining: Some(token),
            syncing: None,
            synced: false,
            is_new: true,
            deadline_ms: 0,
            session_at_ms: None,
            rank,
        };
        known.add(join.member_id.clone(), member);
        self.heard(&join.group, &join.member_id, now_ms);
        self.rebalance(&join.group, now_ms, effects);
        Ok(())
    }

    fn join_again(
        &mut self,
        join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::UnknownMemberId)?;
        Self::check_member(known, &join.member_id, join.instance_id.as_deref())?;
        let leads = known.leader == join.member_id;
        let member = known.members.get_mut(&join.member_id).ok_or(Refused::UnknownMemberId)?;
        let unchanged = member.protocols == join.protocols;
        let knows = match known.state {
            State::Empty => return Err(Refused::UnknownMemberId),
            State::PreparingRebalance => false,
            // The answer was lost on its way.
            State::CompletingRebalance => unchanged,
            // A leader that joins again wants a new assignment.
            State::Stable => unchanged && !leads,
        };
        if knows {
            let joined = known.joined(&join.member_id);
            effects.push(Effect::Joined(token, Ok(joined)));
            self.heard(&join.group, &join.member_id, now_ms);
            return Ok(());
        }
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        known.set_protocols(&join.member_id, join.protocols);
        if let Some(parked) = known.park_join(&join.member_id, token) {
            let refused = (Refused::UnknownMemberId, join.member_id.clone());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        self.heard(&join.group, &join.member_id, now_ms);
        self.rebalance(&join.group, now_ms, effects);
        Ok(())
    }

    /// Begins a rebalance unless there is one, and ends it if everybody has joined.
    pub(super) fn rebalance(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        if known.state == State::PreparingRebalance {
            return self.try_complete(group, now_ms, effects);
        }
        self.deadlines.clear(&mut known.sync_at_ms, Timer::Sync { group: group.into() });
        let was_empty = known.state == State::Empty;
        let was_assigned = known.state == State::Stable;
        for member in known.members.values_mut() {
            if !was_assigned {
                member.assignment.clear();
            }
            if let Some(parked) = member.syncing.take() {
                effects.push(Effect::Synced(parked, Err(Refused::RebalanceInProgress)));
            }
        }
        known.state = State::PreparingRebalance;
        let whole_ms = known.rebalance_ms();
        let first_ms = self.config.initial_delay_ms;
        let waits = was_empty && first_ms > 0;
        known.initial = waits
            .then(|| Initial { left_ms: whole_ms.saturating_sub(first_ms).max(0), grew: false });
        let wait_ms = if waits { first_ms } else { whole_ms };
        let timer = Timer::Rebalance { group: group.into() };
        self.deadlines.set(&mut known.rebalance_at_ms, now_ms.saturating_add(wait_ms), timer);
        if was_empty && !waits {
            // Ids that were given out are not waited for either.
            return self.complete(group, now_ms, effects);
        }
        self.try_complete(group, now_ms, effects);
    }

    /// Ends the rebalance if everybody has joined.
    pub(super) fn try_complete(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let ready = self.groups.get(group).is_some_and(|known| {
            known.state == State::PreparingRebalance
                && known.initial.is_none()
                && known.all_joined()
        });
        if ready {
            self.complete(group, now_ms, effects);
        }
    }

    pub(super) fn rebalance_over(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        known.rebalance_at_ms = None;
        if let Some(initial) = &mut known.initial
            && initial.grew
            && initial.left_ms > 0
        {
            initial.grew = false;
            let wait_ms = self.config.initial_delay_ms.min(initial.left_ms);
            initial.left_ms -= wait_ms;
            let timer = Timer::Rebalance { group: group.into() };
            let at_ms = now_ms.saturating_add(wait_ms);
            return self.deadlines.set(&mut known.rebalance_at_ms, at_ms, timer);
        }
        known.initial = None;
        self.complete(group, now_ms, effects);
    }

    /// Ends the rebalance: a new generation of those who joined.
    fn complete(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        // Static members keep their place until their session is over.
        self.discard_where(group, effects, |member| {
            member.joining.is_none() && member.instance_id.is_none()
        });
        let Some(known) = self.groups.get_mut(group) else { return };
        let timer = || Timer::Rebalance { group: group.into() };
        self.deadlines.clear(&mut known.rebalance_at_ms, timer());
        let joined = known.members.iter().filter(|(_, member)| member.joining.is_some());
        let first = joined.min_by_key(|(_, member)| member.rank).map(|(id, _)| id.clone());
        let leader = known.members.get(&known.leader);
        let leads = leader.is_some_and(|member| member.joining.is_some());
        match first {
            Some(first) if !leads => known.leader = first,
            None if !known.members.is_empty() => {
                // Only static members that are away: wait for them once more.
                let at_ms = now_ms.saturating_add(known.rebalance_ms().max(1));
                return self.deadlines.set(&mut known.rebalance_at_ms, at_ms, timer());
            }
            _ => {}
        }
        known.generation = known.generation.saturating_add(1);
        if known.members.is_empty() {
            known.state = State::Empty;
            known.protocol.clear();
            known.empty_since_ms = now_ms;
            effects.push(Effect::Changed(group.to_owned()));
            return self.watch_offsets(group, now_ms);
        }
        known.protocol = known.vote();
        known.state = State::CompletingRebalance;
        let wait_ms = known.rebalance_ms();
        let timer = Timer::Sync { group: group.into() };
        self.deadlines.set(&mut known.sync_at_ms, now_ms.saturating_add(wait_ms), timer);
        self.tell_joined(group, now_ms, effects);
    }

    /// Tells everybody who joined of the new generation.
    fn tell_joined(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let ids: Vec<String> = known.members.keys().cloned().collect();
        for id in &ids {
            if let Some(token) = known.unpark_join(id) {
                effects.push(Effect::Joined(token, Ok(known.joined(id))));
            }
            if let Some(member) = known.members.get_mut(id) {
                (member.synced, member.is_new) = (false, false);
            }
        }
        for id in &ids {
            self.heard(group, id, now_ms);
        }
    }

    /// Takes members out without a rebalance, those that wait for an answer with one.
    pub(super) fn discard_where(
        &mut self,
        group: &str,
        effects: &mut Vec<Effect>,
        gone: impl Fn(&Member) -> bool,
    ) {
        let Some(known) = self.groups.get(group) else { return };
        let mut ids: Vec<(u64, String)> = known
            .members
            .iter()
            .filter(|(_, member)| gone(member))
            .map(|(id, member)| (member.rank, id.clone()))
            .collect();
        // Whoever follows as the leader goes last, so that few have to be looked for.
        ids.sort_unstable_by(|one, other| other.cmp(one));
        for (_, id) in ids {
            self.discard(group, &id, effects);
        }
    }

    /// Takes a member out without a rebalance; whether there was one.
    fn discard(&mut self, group: &str, member_id: &str, effects: &mut Vec<Effect>) -> bool {
        let Some(known) = self.groups.get_mut(group) else { return false };
        let Some(mut member) = known.take(member_id) else { return false };
        let timer = Timer::Session { group: group.into(), member: member_id.into() };
        self.deadlines.clear(&mut member.session_at_ms, timer);
        if let Some(parked) = member.joining {
            let refused = (Refused::UnknownMemberId, String::new());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        if let Some(parked) = member.syncing {
            effects.push(Effect::Synced(parked, Err(Refused::UnknownMemberId)));
        }
        true
    }

    /// A member is gone.
    pub(super) fn remove_member(
        &mut self,
        group: &str,
        member_id: &str,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        if self.discard(group, member_id, effects) {
            self.rebalance(group, now_ms, effects);
        }
    }
}
