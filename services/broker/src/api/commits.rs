//! Committed offsets of groups.

use std::rc::Rc;

use engine::net::Server;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use logic::group::{Commit, Committed, Groups};

use uuid::Uuid;

use super::groups::check;
use super::text;
use crate::code::Code;
use crate::coordinator;
use crate::offsets_topic;
use crate::partition::unix_ms;
use crate::serve::Broker;
use crate::shard::Shard;

/// The version from which on requests name topics by id.
const BY_ID_FROM: i16 = 10;

/// Commits offsets; answered when they are durable.
pub(super) async fn commit(
    server: &Rc<Server<Broker>>,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    let allowed = check(server, &group).and_then(|()| {
        let commit = Commit {
            group: &group,
            member_id: &request.member_id,
            instance_id: request.group_instance_id.as_deref(),
            generation: request.generation_id_or_member_epoch,
        };
        coordinator::change(server, |groups, now_ms, _| groups.may_commit(&commit, now_ms))
            .map_err(|refused| refused.number())
    });
    let now_ms = unix_ms(server.cx().now());
    let (mut records, mut staged) = (Vec::new(), Vec::new());
    let mut topics = Vec::with_capacity(request.topics.len());
    for mut topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let named = name(&server.shard().borrow(), version, &mut topic.name, topic.topic_id);
        for wanted in topic.partitions {
            let index = wanted.partition_index;
            let checked = allowed
                .and(named)
                .and_then(|()| check_partition(&server.shard().borrow(), &topic.name, &wanted));
            if checked.is_ok() {
                let place = (topic.name.to_string(), index);
                let committed = committed(wanted, now_ms);
                records.push(offsets_topic::offset(&group, &place, Some(&committed)));
                staged.push((place, committed));
            }
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(checked.err().unwrap_or(0)),
            );
        }
        let answer = OffsetCommitResponseTopic::default().with_partitions(partitions);
        topics.push(match version >= BY_ID_FROM {
            true => answer.with_topic_id(topic.topic_id),
            false => answer.with_name(topic.name),
        });
    }
    if !records.is_empty() {
        for (place, _) in &staged {
            let mut shard = server.shard().borrow_mut();
            shard.coordinator.groups.stage(&group, place.clone(), now_ms);
        }
        match coordinator::store(server, &group, records).await {
            Ok(()) => {
                let mut shard = server.shard().borrow_mut();
                for (place, committed) in staged {
                    shard.coordinator.groups.committed(&group, place, committed, now_ms);
                }
            }
            Err(code) => {
                for (place, _) in &staged {
                    server.shard().borrow_mut().coordinator.groups.unstage(&group, place);
                }
                let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                for partition in partitions.filter(|partition| partition.error_code == 0) {
                    partition.error_code = code.number();
                }
            }
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// Finds the name of a topic that is named by its id in this version.
fn name(shard: &Shard, version: i16, name: &mut TopicName, id: Uuid) -> Result<(), i16> {
    if version >= BY_ID_FROM {
        let found = shard.names.get(id.as_bytes()).ok_or(Code::UnknownTopicId.number())?;
        *name = TopicName(text(&**found));
    }
    Ok(())
}

/// The other way round; none when the topic is no more.
fn id(shard: &Shard, name: &TopicName) -> Option<Uuid> {
    shard.catalog.topics.get(name.0.as_str()).map(|topic| Uuid::from_bytes(topic.id))
}

fn check_partition(
    shard: &Shard,
    topic: &str,
    wanted: &OffsetCommitRequestPartition,
) -> Result<(), i16> {
    let known = shard.catalog.topics.get(topic);
    if !known.is_some_and(|known| (0..known.partitions).contains(&wanted.partition_index)) {
        return Err(Code::UnknownTopicOrPartition.number());
    }
    let metadata = wanted.committed_metadata.as_deref().unwrap_or_default();
    shard.coordinator.groups.check_metadata(metadata).map_err(|refused| refused.number())
}

fn committed(wanted: OffsetCommitRequestPartition, now_ms: i64) -> Committed {
    Committed {
        offset: wanted.committed_offset,
        leader_epoch: wanted.committed_leader_epoch,
        metadata: wanted.committed_metadata.map(|text| text.to_string()).unwrap_or_default(),
        committed_ms: now_ms,
    }
}

/// What is committed for a partition; offset -1 for nothing.
fn find(groups: &Groups, group: &str, topic: &str, index: i32) -> Option<Committed> {
    groups.get(group)?.offsets.get(&(topic.to_owned(), index)).cloned()
}

/// Everything that is committed, by topic.
fn all(groups: &Groups, group: &str) -> Vec<(TopicName, Vec<i32>)> {
    let mut topics: Vec<(TopicName, Vec<i32>)> = Vec::new();
    for (topic, index) in groups.get(group).into_iter().flat_map(|known| known.offsets.keys()) {
        match topics.last_mut() {
            Some((name, indexes)) if name.0.as_str() == topic => indexes.push(*index),
            _ => topics.push((TopicName(text(topic.as_str())), vec![*index])),
        }
    }
    topics
}

/// What is committed.
pub(super) fn fetch(
    server: &Server<Broker>,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|wanted| {
            let group = wanted.group_id.to_string();
            let answer = OffsetFetchResponseGroup::default().with_group_id(wanted.group_id);
            if let Err(code) = check(server, &group) {
                return answer.with_error_code(code);
            }
            let shard = server.shard().borrow();
            let groups = &shard.coordinator.groups;
            let topics: Vec<(TopicName, Uuid, Vec<i32>)> = match wanted.topics {
                Some(topics) => topics
                    .into_iter()
                    .map(|topic| (topic.name, topic.topic_id, topic.partition_indexes))
                    .collect(),
                None => all(groups, &group)
                    .into_iter()
                    .filter_map(|(name, indexes)| {
                        let id = id(&shard, &name);
                        let id = if version >= BY_ID_FROM { id? } else { Uuid::nil() };
                        Some((name, id, indexes))
                    })
                    .collect(),
            };
            let topics = topics.into_iter().map(|(mut name, id, indexes)| {
                let named = self::name(&shard, version, &mut name, id);
                let partitions = indexes.into_iter().map(|index| {
                    let found = find(groups, &group, &name, index);
                    let answer = OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_error_code(named.err().unwrap_or(0));
                    match found {
                        Some(found) => answer
                            .with_committed_offset(found.offset)
                            .with_committed_leader_epoch(found.leader_epoch)
                            .with_metadata(Some(text(found.metadata))),
                        None => answer.with_committed_offset(-1).with_metadata(Some(text(""))),
                    }
                });
                let answer =
                    OffsetFetchResponseTopics::default().with_partitions(partitions.collect());
                match version >= BY_ID_FROM {
                    true => answer.with_topic_id(id),
                    false => answer.with_name(name),
                }
            });
            answer.with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    fetch_one(server, request, version)
}

fn fetch_one(
    server: &Server<Broker>,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let group = request.group_id.to_string();
    let refusal = check(server, &group).err().unwrap_or(0);
    let shard = server.shard().borrow();
    let groups = &shard.coordinator.groups;
    let topics = match request.topics {
        Some(topics) => {
            topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
        }
        None => all(groups, &group),
    };
    let topics = topics.into_iter().map(|(name, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let found = if refusal == 0 { find(groups, &group, &name, index) } else { None };
            let answer = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(refusal);
            match found {
                Some(found) => answer
                    .with_committed_offset(found.offset)
                    .with_committed_leader_epoch(if version >= 5 { found.leader_epoch } else { -1 })
                    .with_metadata(Some(text(found.metadata))),
                None => answer.with_committed_offset(-1).with_metadata(Some(text(""))),
            }
        });
        OffsetFetchResponseTopic::default().with_partitions(partitions.collect()).with_name(name)
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 { response.with_error_code(refusal) } else { response }
}

/// Deletes committed offsets of topics that nobody in the group consumes.
pub(super) async fn delete(
    server: &Rc<Server<Broker>>,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let group = request.group_id.to_string();
    if let Err(code) = check(server, &group) {
        return OffsetDeleteResponse::default().with_error_code(code);
    }
    if server.shard().borrow().coordinator.groups.get(&group).is_none() {
        return OffsetDeleteResponse::default().with_error_code(Code::GroupIdNotFound.number());
    }
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let allowed = {
            let shard = server.shard().borrow();
            shard.coordinator.groups.may_delete_offsets(&group, &topic.name)
        };
        let code = allowed.err().map_or(0, |refused| refused.number());
        let partitions = topic.partitions.iter().map(|one| {
            if code == 0 {
                places.push((topic.name.to_string(), one.partition_index));
            }
            OffsetDeleteResponsePartition::default()
                .with_partition_index(one.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        let answer = OffsetDeleteResponseTopic::default().with_name(topic.name);
        topics.push(answer.with_partitions(partitions));
    }
    if !places.is_empty() {
        let records = places.iter().map(|place| offsets_topic::offset(&group, place, None));
        if let Err(code) = coordinator::store(server, &group, records.collect()).await {
            return OffsetDeleteResponse::default().with_error_code(code.number());
        }
        let mut shard = server.shard().borrow_mut();
        for place in &places {
            shard.coordinator.groups.deleted(&group, place);
        }
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
