//! Static members (KIP-345): one that is back takes its place over under a new id, without a rebalance if it would
//! change nothing.
//!
//! Its new id is stored before it is told: otherwise, after a start, the id before would be the member's and the
//! new one fenced. Next: `join` for everybody else.

use super::{Effect, Groups, Join, Joined, Refused, State, Timer, Token};

/// A static member that is back under another id, to be stored; for [`Groups::replaced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    token: Token,
    member_id: String,
    /// Who led before.
    leader: String,
    can_skip_assignment: bool,
}

impl Groups {
    /// A static member is back under a new id.
    pub(super) fn replace(
        &mut self,
        join: Join,
        old: &str,
        token: Token,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let known = self.groups.get_mut(&join.group).ok_or(Refused::CoordinatorNotAvailable)?;
        let leader = known.leader.clone();
        let mut member = known.take(old).ok_or(Refused::UnknownMemberId)?;
        if let Some(parked) = member.joining.replace(token) {
            let refused = (Refused::FencedInstanceId, old.to_owned());
            effects.push(Effect::Joined(parked, Err(refused)));
        }
        if let Some(parked) = member.syncing.take() {
            effects.push(Effect::Synced(parked, Err(Refused::FencedInstanceId)));
        }
        let timer = Timer::Session { group: join.group.clone(), member: old.to_owned() };
        self.deadlines.clear(&mut member.session_at_ms, timer);
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        member.protocols = join.protocols;
        known.add(join.member_id.clone(), member);
        if leader == old {
            known.leader.clone_from(&join.member_id);
        }
        let unchanged = known.state == State::Stable && known.vote() == known.protocol;
        self.heard(&join.group, &join.member_id, now_ms);
        if unchanged {
            let replaced = Replaced {
                token,
                member_id: join.member_id,
                leader,
                can_skip_assignment: join.can_skip_assignment,
            };
            effects.push(Effect::Replaced(join.group, replaced));
        } else {
            self.rebalance(&join.group, now_ms, effects);
        }
        Ok(())
    }

    /// The group with a static member's new id was stored, or could not be.
    pub fn replaced(
        &mut self,
        group: &str,
        replaced: Replaced,
        ok: bool,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Replaced { token, member_id, leader, can_skip_assignment } = replaced;
        let Some(known) = self.groups.get_mut(group) else { return };
        let waits = |id: &str| known.members.get(id).is_some_and(|one| one.joining == Some(token));
        if known.state != State::Stable || !waits(&member_id) {
            // Overtaken by a rebalance, whose answer it gets, or by its next return.
            return;
        }
        known.unpark_join(&member_id);
        let answer = if !ok {
            // Nobody knows the new id; the member asks once more and gets another.
            Err((Refused::CoordinatorNotAvailable, String::new()))
        } else if can_skip_assignment {
            let skip_assignment = known.leader == member_id;
            Ok(Joined { skip_assignment, ..known.joined(&member_id) })
        } else {
            // It would assign if it were told that it leads.
            Ok(Joined { leader, members: Vec::new(), ..known.joined(&member_id) })
        };
        effects.push(Effect::Joined(token, answer));
        self.heard(group, &member_id, now_ms);
    }
}
