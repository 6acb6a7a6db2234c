//! Offsets that are too old, and groups that nobody needs (KIP-211).
//!
//! Of an empty group all offsets go when the retention has passed since its last member left and since the commit;
//! of consumers that assign themselves, since the commit; of a stable group of consumers, since the commit if nobody
//! subscribes to the topic. Then the group goes. Invariants: nothing goes while a commit of it is being stored; one
//! step looks at a bounded number of offsets, and a group that has some is looked at once a check interval at most,
//! but for further steps of a pass. Next: `offsets` for commits.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::offsets::topics_of;
use super::state::Looked;
use super::{Committed, Effect, Group, Groups, State, Timer, TopicPartition};

/// Offsets looked at in one step.
pub(super) const STEP: usize = 256;

impl Groups {
    /// Sees to it that a group's offsets are looked at within a check interval.
    pub(super) fn watch_offsets(&mut self, group: &str, now_ms: i64) {
        let at_ms = now_ms.saturating_add(self.config.offsets_check_ms);
        if let Some(known) = self.groups.get_mut(group)
            && known.offsets_at_ms.is_none_or(|before_ms| before_ms > at_ms)
        {
            known.looked = Looked::NOTHING;
            let timer = Timer::Offsets { group: group.to_owned() };
            self.deadlines.set(&mut known.offsets_at_ms, at_ms, timer);
        }
    }

    /// One step through the offsets of a group.
    pub(super) fn expire_offsets(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let retention_ms = self.config.offsets_retention_ms;
        let check_at_ms = now_ms.saturating_add(self.config.offsets_check_ms);
        let Some(known) = self.groups.get_mut(group) else { return };
        known.offsets_at_ms = None;
        let looked = std::mem::replace(&mut known.looked, Looked::NOTHING);
        let at_ms = match known.needed_topics() {
            // When it is empty or stable again it is watched anew.
            None => return,
            Some(_) if known.is_unused() => {
                effects.push(Effect::GroupExpired(group.to_owned()));
                // Should that not be stored.
                check_at_ms
            }
            Some(needed) => {
                let from = looked.upto.map_or(Unbounded, Excluded);
                let mut next_ms = looked.next_ms;
                let (mut steps, mut last) = (0, None);
                for (partition, committed) in known.offsets.range((from, Unbounded)).take(STEP) {
                    (steps, last) = (steps + 1, Some(partition));
                    if needed.contains(partition.0.as_str()) {
                        continue;
                    }
                    let at_ms = known.expires_ms(committed, retention_ms);
                    if at_ms <= now_ms && !known.staged.contains_key(partition) {
                        let expired = Effect::OffsetExpired(group.to_owned(), partition.clone());
                        effects.push(expired);
                    }
                    next_ms = next_ms.min(at_ms);
                }
                if steps == STEP {
                    let upto = last.cloned();
                    known.looked = Looked { upto, next_ms };
                    now_ms
                } else if next_ms == i64::MAX && known.state == State::Stable {
                    // All of it is consumed; that changes with the next generation only.
                    return;
                } else if next_ms == i64::MAX {
                    check_at_ms
                } else {
                    next_ms.max(check_at_ms)
                }
            }
        };
        let timer = Timer::Offsets { group: group.to_owned() };
        self.deadlines.set(&mut known.offsets_at_ms, at_ms, timer);
    }

    /// Whether an offset that was found too old still is.
    #[must_use]
    pub fn expires(&self, group: &str, partition: &TopicPartition, now_ms: i64) -> bool {
        let retention_ms = self.config.offsets_retention_ms;
        self.groups.get(group).is_some_and(|known| {
            matches!(known.state, State::Empty | State::Stable)
                && !known.staged.contains_key(partition)
                && known
                    .offsets
                    .get(partition)
                    .is_some_and(|one| known.expires_ms(one, retention_ms) <= now_ms)
        })
    }

    /// Whether a group that nobody needed is still unused.
    #[must_use]
    pub fn is_unused(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(Group::is_unused)
    }
}

impl Group {
    /// When an offset is too old if nobody subscribes to its topic.
    fn expires_ms(&self, committed: &Committed, retention_ms: i64) -> i64 {
        let had_members = self.state == State::Empty && !self.protocol_type.is_empty();
        let since_ms = if had_members { self.empty_since_ms } else { i64::MIN };
        since_ms.max(committed.committed_ms).saturating_add(retention_ms)
    }

    /// Topics whose offsets do not get too old; none if no offset does now.
    fn needed_topics(&self) -> Option<BTreeSet<&str>> {
        match self.state {
            State::Empty => Some(BTreeSet::new()),
            State::Stable if self.protocol_type == "consumer" => {
                let mut topics = BTreeSet::new();
                for member in self.members.values() {
                    topics.extend(topics_of(member.metadata(&self.protocol))?);
                }
                Some(topics)
            }
            State::Stable | State::PreparingRebalance | State::CompletingRebalance => None,
        }
    }
}
