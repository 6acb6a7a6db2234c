//! Membership: joining, the rebalance that follows, and leaving.

use super::state::{Initial, Member};
use super::{Effect, Group, Groups, Join, Refused, State, Timer, Token};

impl Groups {
    /// A wish to be a member; answered by an effect, perhaps at once.
    pub fn join(&mut self, join: Join, token: Token, now_ms: i64, effects: &mut Vec<Effect>) {
        let member_id = join.member_id.clone();
        if let Err(refused) = self.try_join(join, token, now_ms, effects) {
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
        if !self.groups.contains_key(&join.group) {
            if !join.member_id.is_empty() {
                return Err(Refused::UnknownMemberId);
            }
            self.add_group(&join.group, now_ms)?;
        }
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        if !known.fits(&join.protocol_type, &join.protocols) {
            return Err(Refused::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            return self.join_new(join, token, now_ms, effects);
        }
        if join.instance_id.is_none() && known.pending.remove(&join.member_id).is_some() {
            return self.add_member(join, token, now_ms, effects);
        }
        self.join_again(join, token, now_ms, effects)
    }

    pub(super) fn add_group(&mut self, group: &str, now_ms: i64) -> Result<&mut Group, Refused> {
        if !self.groups.contains_key(group) && self.groups.len() >= self.config.groups_max {
            return Err(Refused::CoordinatorNotAvailable);
        }
        Ok(self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(now_ms)))
    }

    fn join_new(
        &mut self,
        mut join: Join,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        if known.members.len() + known.pending.len() >= self.config.members_max
            && join
                .instance_id
                .as_ref()
                .is_none_or(|instance| !known.instances.contains_key(instance))
        {
            return Err(Refused::GroupMaxSizeReached);
        }
        let stem = join.instance_id.as_ref().unwrap_or(&join.client_id);
        join.member_id = format!("{stem}-{}", join.unique);
        match &join.instance_id {
            Some(instance) => match known.instances.get(instance).cloned() {
                Some(old) => self.replace(join, &old, token, now_ms, effects),
                None => self.add_member(join, token, now_ms, effects),
            },
            None if join.requires_known_id => {
                known.pending.insert(join.member_id.clone(), ());
                let timer = Timer::Pending { group: join.group, member: join.member_id.clone() };
                self.set_timer(now_ms + i64::from(join.session_ms), timer);
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
        if let Some(instance) = &join.instance_id {
            known.instances.insert(instance.clone(), join.member_id.clone());
        }
        if known.members.is_empty() {
            known.protocol_type.clone_from(&join.protocol_type);
        }
        if known.leader.is_empty() {
            known.leader.clone_from(&join.member_id);
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
            deadline_ms: 0,
            has_timer: false,
            rank,
        };
        known.members.insert(join.member_id.clone(), member);
        self.heard(&join.group, &join.member_id, now_ms);
        self.rebalance(&join.group, now_ms, effects);
        Ok(())
    }

    /// A static member is back under a new id.
    fn replace(
        &mut self,
        join: Join,
        old: &str,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        let mut member = known.members.remove(old).ok_or(Refused::UnknownMemberId)?;
        if let Some(parked) = member.joining.take() {
            let refused = (Refused::FencedInstanceId, old.to_owned());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        if let Some(parked) = member.syncing.take() {
            effects.push(Effect::Synced(parked, Err(Refused::FencedInstanceId)));
        }
        let leads = known.leader == old;
        if leads {
            known.leader.clone_from(&join.member_id);
        }
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        member.protocols = join.protocols;
        member.has_timer = false;
        if let Some(instance) = &join.instance_id {
            known.instances.insert(instance.clone(), join.member_id.clone());
        }
        known.members.insert(join.member_id.clone(), member);
        let unchanged = known.state == State::Stable && known.vote() == known.protocol;
        if unchanged {
            let mut joined = known.joined(&join.member_id);
            joined.skip_assignment = leads;
            effects.push(Effect::Joined(token, Ok(joined)));
            self.heard(&join.group, &join.member_id, now_ms);
            return Ok(());
        }
        if let Some(member) = known.members.get_mut(&join.member_id) {
            member.joining = Some(token);
        }
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
        let generation = known.generation;
        Self::check_member(known, &join.member_id, join.instance_id.as_deref(), generation)?;
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
        member.protocols = join.protocols;
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        if let Some(parked) = member.joining.replace(token) {
            let refused = (Refused::UnknownMemberId, join.member_id.clone());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        self.heard(&join.group, &join.member_id, now_ms);
        self.rebalance(&join.group, now_ms, effects);
        Ok(())
    }

    /// Begins a rebalance unless there is one, and ends it if everybody has joined.
    pub(super) fn rebalance(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let round = self.next_round;
        let Some(known) = self.groups.get_mut(group) else { return };
        if known.state == State::PreparingRebalance {
            return self.try_complete(group, now_ms, effects);
        }
        self.next_round += 1;
        known.round = round;
        let was_empty = known.state == State::Empty;
        for member in known.members.values_mut() {
            if let Some(parked) = member.syncing.take() {
                effects.push(Effect::Synced(parked, Err(Refused::RebalanceInProgress)));
            }
        }
        known.state = State::PreparingRebalance;
        let whole_ms = known.rebalance_ms();
        let wait_ms = if was_empty {
            let first_ms = self.config.initial_delay_ms.min(whole_ms);
            known.initial = Some(Initial { left_ms: whole_ms - first_ms, grew: false });
            first_ms
        } else {
            whole_ms
        };
        let timer = Timer::Rebalance { group: group.into(), round };
        self.set_timer(now_ms.saturating_add(wait_ms), timer);
        if was_empty && wait_ms > 0 {
            return;
        }
        if let Some(known) = self.groups.get_mut(group) {
            known.initial = None;
        }
        self.try_complete(group, now_ms, effects);
    }

    /// Ends the rebalance if everybody has joined.
    pub(super) fn try_complete(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get(group) else { return };
        let all = known.members.values().all(|member| member.joining.is_some());
        if known.state == State::PreparingRebalance
            && known.initial.is_none()
            && all
            && known.pending.is_empty()
        {
            self.complete(group, now_ms, effects);
        }
    }

    pub(super) fn rebalance_over(
        &mut self,
        group: &str,
        round: u64,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = self.groups.get_mut(group) else { return };
        if known.state != State::PreparingRebalance || known.round != round {
            return;
        }
        if let Some(initial) = &mut known.initial
            && initial.grew
            && initial.left_ms > 0
        {
            initial.grew = false;
            let wait_ms = self.config.initial_delay_ms.min(initial.left_ms);
            initial.left_ms -= wait_ms;
            let timer = Timer::Rebalance { group: group.into(), round };
            return self.set_timer(now_ms.saturating_add(wait_ms), timer);
        }
        known.initial = None;
        self.complete(group, now_ms, effects);
    }

    /// Ends the rebalance: a new generation of those who joined.
    fn complete(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let absent = |member: &Member| member.joining.is_none();
        // Static members keep their place until their session is over.
        let gone: Vec<String> = known
            .members
            .iter()
            .filter(|(_, member)| absent(member) && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            known.members.remove(&id);
        }
        let joined = known.members.iter().filter(|(_, member)| !absent(member));
        let leader = joined.min_by_key(|(_, member)| member.rank).map(|(id, _)| id.clone());
        let leads = known.members.get(&known.leader).is_some_and(|member| !absent(member));
        match leader {
            Some(leader) if !leads => known.leader = leader,
            None if !known.members.is_empty() => {
                // Only static members that are away: wait for them once more.
                let round = known.round;
                let wait_ms = known.rebalance_ms().max(1);
                let timer = Timer::Rebalance { group: group.into(), round };
                return self.set_timer(now_ms.saturating_add(wait_ms), timer);
            }
            _ => {}
        }
        known.generation = known.generation.saturating_add(1);
        if known.members.is_empty() {
            known.state = State::Empty;
            known.protocol.clear();
            known.leader.clear();
            known.empty_since_ms = now_ms;
            effects.push(Effect::Changed(group.to_owned()));
            return self.watch_offsets(group, now_ms);
        }
        known.protocol = known.vote();
        known.state = State::CompletingRebalance;
        let mut answers = Vec::new();
        for (id, member) in &mut known.members {
            answers.extend(member.joining.take().map(|token| (token, id.clone())));
        }
        for (token, id) in &answers {
            effects.push(Effect::Joined(*token, Ok(known.joined(id))));
        }
        let (generation, wait_ms) = (known.generation, known.rebalance_ms());
        for (_, id) in answers {
            self.heard(group, &id, now_ms);
        }
        let timer = Timer::Sync { group: group.into(), generation };
        self.set_timer(now_ms.saturating_add(wait_ms), timer);
    }

    /// A member is gone.
    pub(super) fn remove_member(
        &mut self,
        group: &str,
        member_id: &str,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = self.groups.get_mut(group) else { return };
        let Some(mut member) = known.members.remove(member_id) else { return };
        if let Some(parked) = member.joining.take() {
            let refused = (Refused::UnknownMemberId, member_id.to_owned());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        if let Some(parked) = member.syncing.take() {
            effects.push(Effect::Synced(parked, Err(Refused::UnknownMemberId)));
        }
        if let Some(instance) = &member.instance_id {
            known.instances.remove(instance);
        }
        if known.leader == member_id {
            let next = known.members.iter().min_by_key(|(_, member)| member.rank);
            known.leader = next.map_or_else(String::new, |(id, _)| id.clone());
        }
        match known.state {
            State::Empty => {}
            State::PreparingRebalance => self.try_complete(group, now_ms, effects),
            State::CompletingRebalance | State::Stable => self.rebalance(group, now_ms, effects),
        }
    }
}
