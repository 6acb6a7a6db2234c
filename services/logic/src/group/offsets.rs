//! Offsets that groups have committed.
//!
//! A commit is checked here and staged, stored by the caller, and then applied; likewise what is deleted. Invariant:
//! what is staged is neither too old nor left over when its group is deleted, since the record of it may come before
//! the tombstones. Next: `expiry` for what is too old.

use super::{Group, Groups, Refused, State};

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
        // The group's name may be empty here, as it always might.
        let Some(known) = self.groups.get(commit.group) else {
            if commit.generation >= 0 {
                return Err(Refused::IllegalGeneration);
            }
            return self.check_groups();
        };
        if commit.generation < 0 && known.state == State::Empty {
            return Ok(());
        }
        Self::check_member(known, commit.member_id, commit.instance_id)?;
        Self::check_generation(known, commit.generation)?;
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

    /// A commit that [`Groups::may_commit`] allowed goes to be stored; [`Groups::committed`] or
    /// [`Groups::unstage`] follows.
    pub fn stage(&mut self, group: &str, partition: TopicPartition, now_ms: i64) {
        let known = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(now_ms));
        *known.staged.entry(partition).or_default() += 1;
    }

    /// What was committed is stored, or was found at a start.
    pub fn committed(
        &mut self,
        group: &str,
        partition: TopicPartition,
        committed: Committed,
        now_ms: i64,
    ) {
        let known = self.groups.entry(group.to_owned()).or_insert_with(|| Group::new(now_ms));
        known.unstage(&partition);
        known.offsets.insert(partition, committed);
        self.watch_offsets(group, now_ms);
    }

    /// A staged commit could not be stored.
    pub fn unstage(&mut self, group: &str, partition: &TopicPartition) {
        if let Some(known) = self.groups.get_mut(group) {
            known.unstage(partition);
            self.drop_if_blank(group);
        }
    }

    /// What was committed for a partition is deleted.
    pub fn deleted(&mut self, group: &str, partition: &TopicPartition) {
        if let Some(known) = self.groups.get_mut(group) {
            known.offsets.remove(partition);
            self.drop_if_blank(group);
        }
    }

    /// The partitions whose offsets go with a group.
    ///
    /// # Errors
    /// There is no such group, or it has members.
    pub fn may_delete(&self, group: &str) -> Result<Vec<TopicPartition>, Refused> {
        let known = self.groups.get(group).ok_or(Refused::GroupIdNotFound)?;
        if known.state != State::Empty {
            return Err(Refused::NonEmptyGroup);
        }
        let staged = known.staged.keys().filter(|one| !known.offsets.contains_key(*one));
        Ok(known.offsets.keys().chain(staged).cloned().collect())
    }

    /// A group's end and that of its offsets are stored. Members that have come meanwhile stay: the record of their
    /// generation follows.
    pub fn remove(&mut self, group: &str) {
        let Some(known) = self.groups.get_mut(group) else { return };
        known.offsets.clear();
        if known.state == State::Empty {
            self.drop_group(group);
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
}

impl Group {
    fn unstage(&mut self, partition: &TopicPartition) {
        if let Some(count) = self.staged.get_mut(partition) {
            *count -= 1;
            if *count == 0 {
                self.staged.remove(partition);
            }
        }
    }

    /// Whether a member of a consumer group consumes a topic, by its metadata (ConsumerProtocolSubscription:
    /// version, then topics).
    fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            // What cannot be read may be anything.
            topics_of(member.metadata(&self.protocol)).is_none_or(|topics| topics.contains(&topic))
        })
    }
}

/// The topics of a ConsumerProtocolSubscription; none if it is something else.
pub(super) fn topics_of(metadata: &[u8]) -> Option<Vec<&str>> {
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
