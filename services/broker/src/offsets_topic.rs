//! The records of the internal topic: committed offsets and groups, in Kafka's own formats, so that its tools
//! can read them.
//!
//! ```text
//! key   offset: i16 1, group, topic, partition i32      group: i16 2, group
//! value offset: i16 3, offset i64, leader epoch i32, metadata, commit time i64
//!       group:  i16 3, protocol type, generation i32, protocol or null, leader or null, time i64, members
//! ```
//! Source: OffsetCommitKey, OffsetCommitValue, GroupMetadataKey and GroupMetadataValue of Kafka 3 and 4. Next:
//! `coordinator` for who writes them.

use std::collections::BTreeMap;

use logic::group::{Committed, Group, Snapshot, StoredMember, TopicPartition};
use wire::kafka::{Malformed, Reader, Writer};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// The newest versions without tagged fields.
const VALUE: i16 = 3;

/// A record's key and value; none for a tombstone.
pub(crate) type Stored = (Vec<u8>, Option<Vec<u8>>);

/// What a record says.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// An offset was committed, or deleted.
    Offset(String, TopicPartition, Option<Committed>),
    /// A group changed, or was deleted.
    Group(String, Option<Snapshot>),
}

/// The record of an offset.
pub(crate) fn offset(
    group: &str,
    partition: &TopicPartition,
    committed: Option<&Committed>,
) -> Stored {
    let mut key = Vec::new();
    key.i16(OFFSET_KEY);
    key.string(group, false);
    key.string(&partition.0, false);
    key.i32(partition.1);
    let value = committed.map(|committed| {
        let mut value = Vec::new();
        value.i16(VALUE);
        value.i64(committed.offset);
        value.i32(committed.leader_epoch);
        value.string(&committed.metadata, false);
        value.i64(committed.committed_ms);
        value
    });
    (key, value)
}

fn group_key(group: &str) -> Vec<u8> {
    let mut key = Vec::new();
    key.i16(GROUP_KEY);
    key.string(group, false);
    key
}

/// The record that a group is gone.
pub(crate) fn group_gone(group: &str) -> Stored {
    (group_key(group), None)
}

/// The record of a group with these assignments.
pub(crate) fn group(
    id: &str,
    group: &Group,
    assignments: &BTreeMap<String, Vec<u8>>,
    now_ms: i64,
) -> Stored {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut value = Vec::new();
    value.i16(VALUE);
    value.string(&group.protocol_type, false);
    value.i32(group.generation);
    value.nullable_string(or_null(&group.protocol).as_deref(), false);
    value.nullable_string(or_null(&group.leader).as_deref(), false);
    value.i64(now_ms);
    value.array_len(group.members.len(), false);
    for (member_id, member) in &group.members {
        value.string(member_id, false);
        value.nullable_string(member.instance_id.as_deref(), false);
        value.string(&member.client_id, false);
        value.string(&member.client_host, false);
        value.i32(member.rebalance_ms);
        value.i32(member.session_ms);
        value.bytes(member.metadata(&group.protocol), false);
        value.bytes(assignments.get(member_id).map_or(&[][..], Vec::as_slice), false);
    }
    (group_key(id), Some(value))
}

/// Reads a record; `None` for kinds that are not ours.
///
/// # Errors
/// It does not follow the format.
pub(crate) fn read(key: &[u8], value: Option<&[u8]>) -> Result<Option<Entry>, Malformed> {
    let mut key = Reader::new(key);
    match key.i16()? {
        0 | OFFSET_KEY => {
            let group = key.string(false)?.to_owned();
            let partition = (key.string(false)?.to_owned(), key.i32()?);
            let committed = value.map(read_offset).transpose()?;
            Ok(Some(Entry::Offset(group, partition, committed)))
        }
        GROUP_KEY => {
            let group = key.string(false)?.to_owned();
            let snapshot = value.map(read_group).transpose()?;
            Ok(Some(Entry::Group(group, snapshot)))
        }
        _ => Ok(None),
    }
}

fn read_offset(value: &[u8]) -> Result<Committed, Malformed> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    let flexible = version >= 4;
    let offset = value.i64()?;
    let leader_epoch = if version >= 3 { value.i32()? } else { -1 };
    let metadata = value.string(flexible)?.to_owned();
    let committed_ms = value.i64()?;
    Ok(Committed { offset, leader_epoch, metadata, committed_ms })
}

fn read_group(value: &[u8]) -> Result<Snapshot, Malformed> {
    let mut value = Reader::new(value);
    let version = value.i16()?;
    let flexible = version >= 4;
    let protocol_type = value.string(flexible)?.to_owned();
    let generation = value.i32()?;
    let protocol = value.nullable_string(flexible)?.unwrap_or_default().to_owned();
    let leader = value.nullable_string(flexible)?.unwrap_or_default().to_owned();
    let stored_ms = if version >= 2 { value.i64()? } else { -1 };
    let mut members = Vec::new();
    for _ in 0..value.array_len(flexible)? {
        let id = value.string(flexible)?.to_owned();
        let instance_id =
            if version >= 3 { value.nullable_string(flexible)?.map(str::to_owned) } else { None };
        let client_id = value.string(flexible)?.to_owned();
        let client_host = value.string(flexible)?.to_owned();
        let rebalance_ms = if version >= 1 { value.i32()? } else { 60_000 };
        let session_ms = value.i32()?;
        let metadata = value.nullable_bytes(flexible)?.unwrap_or_default().to_vec();
        let assignment = value.nullable_bytes(flexible)?.unwrap_or_default().to_vec();
        value.skip_tagged_fields(flexible)?;
        let member = StoredMember {
            instance_id,
            client_id,
            client_host,
            session_ms,
            rebalance_ms,
            metadata,
            assignment,
        };
        members.push((id, member));
    }
    Ok(Snapshot { generation, protocol_type, protocol, leader, members, stored_ms })
}

/// The partition that a group's records are in: the amount of Java's hash of its id, where the one that has none
/// counts as 0 (Kafka's `Utils.abs`, not `toPositive`).
pub(crate) fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_an_offset() {
        let committed =
            Committed { offset: 5, leader_epoch: 2, metadata: "m".into(), committed_ms: 0x0102 };
        let (key, value) = offset("g", &("t".into(), 3), Some(&committed));
        assert_eq!(key, [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);
        let value = value.expect("no tombstone");
        assert_eq!(
            value,
            [0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 1, 2]
        );
        let Ok(Some(Entry::Offset(group, partition, Some(read)))) = read(&key, Some(&value)) else {
            panic!("an offset");
        };
        assert_eq!((group.as_str(), partition, read), ("g", ("t".into(), 3), committed));
        for cut in 0..key.len() {
            assert!(super::read(&key[..cut], Some(&value)).is_err());
        }
        for cut in 0..value.len() {
            assert!(super::read(&key, Some(&value[..cut])).is_err());
        }
    }

    #[test]
    fn a_group_comes_back() {
        let mut groups = logic::group::Groups::new(logic::group::Config::default());
        let member = StoredMember {
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "h".into(),
            session_ms: 1,
            rebalance_ms: 2,
            metadata: b"meta".to_vec(),
            assignment: b"old".to_vec(),
        };
        let snapshot = Snapshot {
            generation: 4,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            leader: "m".into(),
            members: vec![("m".into(), member)],
            stored_ms: 9,
        };
        groups.load("g", snapshot, 0);
        let assignments = BTreeMap::from([("m".to_owned(), b"new".to_vec())]);
        let (key, value) = group("g", groups.get("g").expect("loaded"), &assignments, 77);
        let value = value.expect("no tombstone");
        let Ok(Some(Entry::Group(id, Some(read)))) = read(&key, Some(&value)) else {
            panic!("a group");
        };
        assert_eq!((id.as_str(), read.generation, read.stored_ms), ("g", 4, 77));
        let (id, member) = &read.members[0];
        assert_eq!((id.as_str(), &member.assignment[..]), ("m", &b"new"[..]));
        assert_eq!(member.instance_id.as_deref(), Some("i"));
        for cut in 0..value.len() {
            assert!(super::read(&key, Some(&value[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn groups_are_in_the_partition_that_kafka_would_choose() {
        // By String.hashCode: 103, 0, -1906497762, 33309882, and the least there is.
        assert_eq!(partition_of("g", 50), 3);
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("my-group", 50), 12);
        assert_eq!(partition_of("ключ", 50), 32);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("polygenelubricants", 47), 0);
    }
}
