//! Topics: what there is and who leads it, making, growing and deleting them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::net::Server;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use uuid::Uuid;

use super::text;
use crate::catalog::{Catalog, Topic, check_name};
use crate::code::Code;
use crate::control::{self, CONTROLLER, Change};
use crate::partition::LEADER_EPOCH;
use crate::serve::Broker;
use crate::shard::{Shard, ShardConfig};
use crate::topic_config;

/// Partitions of one `DescribeTopicPartitions` answer, whatever is asked for (Kafka's default).
const DESCRIBE_MAX: i32 = 2000;

/// The brokers there are: each shard is one, at the port that is like the client's own.
fn brokers(config: &ShardConfig, tls: bool) -> Vec<MetadataResponseBroker> {
    let endpoint = config.endpoint(tls);
    let shards = endpoint.ports.iter().enumerate();
    shards
        .map(|(shard, port)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(config.broker_id(shard)))
                .with_host(text(endpoint.host.as_str()))
                .with_port(i32::from(*port))
                .with_rack(Some(text(config.node.to_string())))
        })
        .collect()
}

fn topic_metadata(shard: &Shard, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions).map(|index| {
        let leader = BrokerId(shard.config.broker_id(shard.leader(topic, index)));
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(leader)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.as_str()))))
        .with_topic_id(Uuid::from_bytes(topic.id))
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}

/// Finds the topics asked for, makes those that are missing where that is wanted, and says who leads what.
pub(super) async fn metadata(
    server: &Rc<Server<Broker>>,
    request: MetadataRequest,
    version: i16,
    tls: bool,
) -> MetadataResponse {
    // Version 0 has no null: an empty list means all.
    let wanted = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let may_create = (version < 4 || request.allow_auto_topic_creation)
        && server.shard().borrow().config.auto_create;
    let mut topics = Vec::new();
    match wanted {
        None => {
            let shard = server.shard().borrow();
            topics.extend(shard.catalog.topics.values().map(|topic| topic_metadata(&shard, topic)));
        }
        Some(wanted) => {
            for one in wanted {
                topics.push(metadata_of(server, one.name, one.topic_id, may_create).await);
            }
        }
    }
    let shard = server.shard().borrow();
    let mut response = MetadataResponse::default()
        .with_brokers(brokers(&shard.config, tls))
        .with_controller_id(BrokerId(shard.config.broker_id(CONTROLLER)))
        .with_topics(topics);
    if version >= 2 {
        response = response.with_cluster_id(Some(text(shard.catalog.cluster_id.as_str())));
    }
    response
}

async fn metadata_of(
    server: &Rc<Server<Broker>>,
    name: Option<TopicName>,
    id: Uuid,
    may_create: bool,
) -> MetadataResponseTopic {
    let by_name = |name: &str| {
        let shard = server.shard().borrow();
        shard.catalog.topics.get(name).map(|topic| topic_metadata(&shard, topic))
    };
    let missing = |name: Option<TopicName>, code: Code| {
        MetadataResponseTopic::default()
            .with_name(name)
            .with_topic_id(id)
            .with_error_code(code.number())
    };
    let Some(name) = name else {
        let known = server.shard().borrow().names.get(id.as_bytes()).cloned();
        return known
            .and_then(|name| by_name(&name))
            .unwrap_or_else(|| missing(None, Code::UnknownTopicId));
    };
    if let Some(found) = by_name(&name) {
        return found;
    }
    if check_name(&name).is_err() {
        return missing(Some(name), Code::InvalidTopic);
    }
    if !may_create {
        return missing(Some(name), Code::UnknownTopicOrPartition);
    }
    let change = Change::Create {
        name: name.to_string(),
        partitions: -1,
        config: BTreeMap::new(),
        check_only: false,
    };
    match control::request(server, change).await {
        // Somebody else was quicker.
        Ok(_) | Err((Code::TopicAlreadyExists, _)) => {
            by_name(&name).unwrap_or_else(|| missing(Some(name.clone()), Code::LeaderNotAvailable))
        }
        Err((code, _)) => missing(Some(name), code),
    }
}

/// What an assignment by hand asks for, as a number of partitions.
fn partitions_of(topic: &CreatableTopic) -> Result<i32, (Code, String)> {
    if topic.assignments.is_empty() {
        return match topic.replication_factor {
            -1 | 1 => Ok(topic.num_partitions),
            _ => {
                Err((Code::InvalidReplicationFactor, Code::InvalidReplicationFactor.text().into()))
            }
        };
    }
    let why = |why: &str| Err((Code::InvalidReplicaAssignment, why.to_owned()));
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err((Code::InvalidRequest, "both numbers and an assignment are given".into()));
    }
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|one| one.partition_index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        return why("partitions must be numbered from 0 without gaps");
    }
    if topic.assignments.iter().any(|one| one.broker_ids.len() != 1) {
        return why("each partition has one replica");
    }
    i32::try_from(indexes.len()).map_or_else(|_| why("too many partitions"), Ok)
}

/// Makes topics, or says whether they could be made.
pub(super) async fn create(
    server: &Rc<Server<Broker>>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    let mut names: Vec<&TopicName> = request.topics.iter().map(|topic| &topic.name).collect();
    names.sort_unstable();
    let twice: Vec<TopicName> =
        names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    for topic in request.topics {
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        let made = if twice.contains(&topic.name) {
            Err((Code::InvalidRequest, "the topic is named twice".to_owned()))
        } else {
            create_one(server, &topic, request.validate_only).await
        };
        results.push(match made {
            Ok(made) => created(result, &made),
            Err((code, why)) => {
                result.with_error_code(code.number()).with_error_message(Some(text(why)))
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create_one(
    server: &Rc<Server<Broker>>,
    topic: &CreatableTopic,
    check_only: bool,
) -> Result<Topic, (Code, String)> {
    let mut config = BTreeMap::new();
    for set in &topic.configs {
        let Some(value) = &set.value else {
            return Err((Code::InvalidConfig, format!("{}: no value", set.name)));
        };
        config.insert(set.name.to_string(), value.to_string());
    }
    let partitions = partitions_of(topic)?;
    let name = topic.name.to_string();
    let change = Change::Create { name, partitions, config, check_only };
    let outcome = control::request(server, change).await?;
    outcome.topic.ok_or_else(|| (Code::UnknownServerError, "no topic came of it".into()))
}

fn created(result: CreatableTopicResult, topic: &Topic) -> CreatableTopicResult {
    let configs = topic_config::ROWS.iter().map(|row| {
        let set = topic.config.get(row.name);
        CreatableTopicConfigs::default()
            .with_name(text(row.name))
            .with_value(Some(text(set.map_or(row.default, String::as_str))))
            .with_config_source(if set.is_some() { 1 } else { 5 })
    });
    result
        .with_topic_id(Uuid::from_bytes(topic.id))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(1)
        .with_configs(Some(configs.collect()))
}

/// Deletes topics, by name or by id.
pub(super) async fn delete(
    server: &Rc<Server<Broker>>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let mut wanted: Vec<(Option<TopicName>, Uuid)> =
        request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect();
    wanted.extend(request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)));
    let mut responses = Vec::with_capacity(wanted.len());
    for (name, id) in wanted {
        let known = match &name {
            Some(name) => Some(name.to_string()),
            None => server.shard().borrow().names.get(id.as_bytes()).map(|name| name.to_string()),
        };
        let deleted = match &known {
            Some(name) => control::request(server, Change::Delete { name: name.clone() }).await,
            None => Err((Code::UnknownTopicId, Code::UnknownTopicId.text().to_owned())),
        };
        let mut result = DeletableTopicResult::default()
            .with_name(known.map(|name| TopicName(text(name))))
            .with_topic_id(id);
        match deleted {
            Ok(outcome) => {
                if let Some(topic) = outcome.topic {
                    result = result.with_topic_id(Uuid::from_bytes(topic.id));
                }
            }
            Err((code, why)) => {
                result.error_code = code.number();
                if version >= 5 {
                    result.error_message = Some(text(why));
                }
            }
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// Gives topics more partitions.
pub(super) async fn grow(
    server: &Rc<Server<Broker>>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let bad = topic
            .assignments
            .as_ref()
            .is_some_and(|assignments| assignments.iter().any(|one| one.broker_ids.len() != 1));
        let grown = if bad {
            Err((Code::InvalidReplicaAssignment, "each partition has one replica".to_owned()))
        } else {
            let name = topic.name.to_string();
            let check_only = request.validate_only;
            control::request(server, Change::Grow { name, partitions: topic.count, check_only })
                .await
        };
        let mut result = CreatePartitionsTopicResult::default().with_name(topic.name);
        if let Err((code, why)) = grown {
            result = result.with_error_code(code.number()).with_error_message(Some(text(why)));
        }
        results.push(result);
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// Partitions of topics, a page at a time.
pub(super) fn describe_partitions(
    server: &Server<Broker>,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let shard = server.shard().borrow();
    let catalog: Arc<Catalog> = Arc::clone(&shard.catalog);
    let mut names: Vec<&str> = request.topics.iter().map(|topic| topic.name.0.as_str()).collect();
    if names.is_empty() {
        names = catalog.topics.keys().map(String::as_str).collect();
    }
    names.sort_unstable();
    names.dedup();
    let (from_topic, from_partition) = request
        .cursor
        .as_ref()
        .map_or(("", 0), |cursor| (cursor.topic_name.0.as_str(), cursor.partition_index.max(0)));
    let mut left = request.response_partition_limit.clamp(1, DESCRIBE_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let first = if name == from_topic { from_partition } else { 0 };
        let Some(topic) = catalog.topics.get(name) else {
            let missing = DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(TopicName(text(name))))
                .with_error_code(Code::UnknownTopicOrPartition.number());
            response.topics.push(missing);
            continue;
        };
        if left == 0 {
            let cursor = Cursor::default().with_topic_name(TopicName(text(name)));
            response.next_cursor = Some(cursor);
            break;
        }
        let end = topic.partitions.min(first.saturating_add(left));
        response.topics.push(described(&shard, topic, first..end));
        left -= end - first.min(end);
        if end < topic.partitions {
            let cursor =
                Cursor::default().with_topic_name(TopicName(text(name))).with_partition_index(end);
            response.next_cursor = Some(cursor);
            break;
        }
    }
    response
}

fn described(
    shard: &Shard,
    topic: &Topic,
    indexes: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = indexes.map(|index| {
        let leader = BrokerId(shard.config.broker_id(shard.leader(topic, index)));
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(leader)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.as_str()))))
        .with_topic_id(Uuid::from_bytes(topic.id))
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}
