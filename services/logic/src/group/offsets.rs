//! Offsets that groups have committed.
//!
//! A commit is checked here, stored by the caller, and then applied; likewise what is deleted. Next: `sync`
//! for who may commit.

use super::{Effect, Group, Groups, Refused, State, Timer};

/// A partition of a topic.
pub type TopicPartition = (String, i32);

/// What was committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the last record read; -1 for none.
    pub leader_epoch: i32,
    /// Opaque.
    pub metadata: String,
    /// When it was committed.
    pub committed_ms: i64,
}

/// Who commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The group.
    pub group: &'a str,
    /// The member; empty for a consumer that assigns itself.
    pub member_id: &'a str,
    /// Its instance.
    pub instance_id: Option<&'a str>,
    /// Its generation; negative for a consumer that assigns itself.
    pub generation: i32,
}

impl Groups {
    /// Whether the member may commit now.
    ///
    /// # Errors
    /// It is none of the generation, or has to join again.
    pub fn may_commit(&mut self, commit: &Commit<'_>, now_ms: i64) -> Result<(), Refused> {
        if commit.group.is_empty() {
            return Err(Refused::InvalidGroupId);
        }
        let Some(known) = self.groups.get(commit.group) else {
            if commit.generation >= 0 {
                return Err(Refused::IllegalGeneration);
            }
            return self.add_group(commit.group, now_ms).map(drop);
        };
        if commit.generation < 0 && known.state == State::Empty {
            return Ok(());
        }
        Self::check_member(known, commit.member_id, commit.instance_id, commit.generation)?;
        let state = known.state;
        self.heard(commit.group, commit.member_id, now_ms);
        match state {
            State::Empty => Err(Refused::UnknownMemberId),
            State::CompletingRebalance => Err(Refused::RebalanceInProgress),
            State::PreparingRebalance | State::Stable => Ok(()),
        }
    }

    /// Whether metadata of an offset is short enough.
    ///
    /// # Errors
    /// It is not.
    pub const fn check_metadata(&self, metadata: &str) -> Result<(), Refused> {
        if metadata.len() > self.config.metadata_max_bytes {
            return Err(Refused::OffsetMetadataTooLarge);
        }
        Ok(())
    }

    /// What was committed is stored.
    pub fn committed(&mut self, group: &str, partition: TopicPartition, committed: Committed) {
        let now_ms = committed.committed_ms;
        if let Ok(known) = self.add_group(group, now_ms) {
            known.offsets.insert(partition, committed);
        }
        self.watch_offsets(group, now_ms);
    }

    /// What was committed for a partition is deleted.
    pub fn deleted(&mut self, group: &str, partition: &TopicPartition) {
        if let Some(known) = self.groups.get_mut(group) {
            known.offsets.remove(partition);
        }
    }

    /// The partitions whose offsets go with a group.
    ///
    /// # Errors
    /// There is no such group, or it has members.
    pub fn may_delete(&self, group: &str) -> Result<Vec<TopicPartition>, Refused> {
        let known = self.groups.get(group).ok_or(Refused::GroupIdNotFound)?;
        if known.state != State::Empty || !known.pending.is_empty() {
            return Err(Refused::NonEmptyGroup);
        }
        Ok(known.offsets.keys().cloned().collect())
    }

    /// A group's end is stored.
    pub fn remove(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(|known| known.state == State::Empty) {
            self.groups.remove(group);
        }
    }

    /// Whether offsets of a topic may be deleted.
    ///
    /// # Errors
    /// There is no such group, a member consumes the topic, or what the members do is not known.
    pub fn may_delete_offsets(&self, group: &str, topic: &str) -> Result<(), Refused> {
        let known = self.groups.get(group).ok_or(Refused::GroupIdNotFound)?;
        match known.state {
            State::Empty => Ok(()),
            _ if known.protocol_type != "consumer" => Err(Refused::NonEmptyGroup),
            _ if known.is_subscribed(topic) => Err(Refused::GroupSubscribedToTopic),
            _ => Ok(()),
        }
    }

    /// Sees to it that offsets of an empty group are looked at when they may be too old.
    pub(super) fn watch_offsets(&mut self, group: &str, now_ms: i64) {
        let at = now_ms.saturating_add(self.config.offsets_retention_ms);
        if let Some(known) = self.groups.get_mut(group)
            && known.state == State::Empty
            && !std::mem::replace(&mut known.watched, true)
        {
            self.set_timer(at, Timer::Offsets { group: group.to_owned() });
        }
    }

    pub(super) fn expire_offsets(&mut self, group: &str, now_ms: i64, effects: &mut Vec<Effect>) {
        let retention_ms = self.config.offsets_retention_ms;
        let Some(known) = self.groups.get_mut(group) else { return };
        known.watched = false;
        if known.state != State::Empty {
            return;
        }
        let had_members = !known.protocol_type.is_empty();
        let since = known.empty_since_ms;
        let old = |committed: &Committed| {
            let from = if had_members {
                since.max(committed.committed_ms)
            } else {
                committed.committed_ms
            };
            now_ms.saturating_sub(from) >= retention_ms
        };
        for (partition, _) in known.offsets.iter().filter(|(_, committed)| old(committed)) {
            effects.push(Effect::OffsetExpired(group.to_owned(), partition.clone()));
        }
        if known.offsets.values().all(old) {
            effects.push(Effect::GroupExpired(group.to_owned()));
        } else {
            self.watch_offsets(group, now_ms);
        }
    }
}

impl Group {
    /// Whether a member of a consumer group consumes a topic, by its metadata (ConsumerProtocolSubscription:
    /// version, then topics).
    fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            // What cannot be read may be anything.
            topics_of(member.metadata(&self.protocol)).is_none_or(|topics| topics.contains(&topic))
        })
    }
}

fn topics_of(metadata: &[u8]) -> Option<Vec<&str>> {
    let rest = metadata.get(2..)?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = after;
    }
    Some(topics)
}
