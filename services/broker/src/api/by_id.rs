//! Requests that name topics by id, in versions that the decoder of the others does not have.
//!
//! Sources: OffsetCommitRequest.json and OffsetFetchRequest.json of Kafka 4.3, version 10. The shapes were checked
//! before. Next: `commits` for what is done with them.

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
};
use uuid::Uuid;
use wire::kafka::{Malformed, Reader};

use super::text;

/// The version from which on topics are named by id.
const FROM: i16 = 10;

/// Decodes a request: here what this is about, else by the decoder of all others in `form`.
pub(crate) fn decode(key: ApiKey, version: i16, form: i16, body: &[u8]) -> Option<RequestKind> {
    let mut reader = Reader::new(body);
    match key {
        ApiKey::OffsetCommit if version >= FROM => commit(&mut reader).ok().map(Into::into),
        ApiKey::OffsetFetch if version >= FROM => fetch(&mut reader).ok().map(Into::into),
        _ => RequestKind::decode(key, &mut Bytes::copy_from_slice(body), form).ok(),
    }
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let len = reader.array_len(true)?;
    (0..len).map(|_| element(reader)).collect()
}

/// The end of a structure.
fn ended<T>(reader: &mut Reader<'_>, value: T) -> Result<T, Malformed> {
    reader.skip_tagged_fields(true).map(|()| value)
}

fn commit(reader: &mut Reader<'_>) -> Result<OffsetCommitRequest, Malformed> {
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(reader.string(true)?)))
        .with_generation_id_or_member_epoch(reader.i32()?)
        .with_member_id(text(reader.string(true)?))
        .with_group_instance_id(reader.nullable_string(true)?.map(text));
    let topics = list(reader, |reader| {
        let id = Uuid::from_bytes(reader.uuid()?);
        let partitions = list(reader, |reader| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(reader.i32()?)
                .with_committed_offset(reader.i64()?)
                .with_committed_leader_epoch(reader.i32()?)
                .with_committed_metadata(reader.nullable_string(true)?.map(text));
            ended(reader, partition)
        })?;
        let topic = OffsetCommitRequestTopic::default().with_topic_id(id);
        ended(reader, topic.with_partitions(partitions))
    })?;
    ended(reader, request.with_topics(topics))
}

fn fetch(reader: &mut Reader<'_>) -> Result<OffsetFetchRequest, Malformed> {
    let groups = list(reader, |reader| {
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(reader.string(true)?)))
            .with_member_id(reader.nullable_string(true)?.map(text))
            .with_member_epoch(reader.i32()?);
        // Null, which is not the same as none: everything that is committed.
        let all = reader.rest().first() == Some(&0);
        let topics = list(reader, |reader| {
            let topic = OffsetFetchRequestTopics::default()
                .with_topic_id(Uuid::from_bytes(reader.uuid()?))
                .with_partition_indexes(list(reader, Reader::i32)?);
            ended(reader, topic)
        })?;
        ended(reader, group.with_topics((!all).then_some(topics)))
    })?;
    let request =
        OffsetFetchRequest::default().with_groups(groups).with_require_stable(reader.i8()? != 0);
    ended(reader, request)
}
