//! Replicas, their leaders and their places, and the quorum of controllers.
//!
//! A partition has one replica, on the shard that its topic's id names, in the one data directory; the
//! first shard is the only controller. What asks for that is done already, what asks for anything else is refused; so
//! tools of a cluster find it in order. Next: `catalog` for who leads what, `control` for the controller.

use engine::net::Server;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, BrokerId, DescribeQuorumRequest,
    DescribeQuorumResponse, ElectLeadersRequest, ElectLeadersResponse,
    ListPartitionReassignmentsResponse,
};
use wire::kafka::TopicRef;

use super::text;
use crate::code::Code;
use crate::control::CONTROLLER;
use crate::partition::LEADER_EPOCH;
use crate::serve::Broker;
use crate::shard::Shard;

/// How tools call the controllers' log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Who leads a partition, if there is such a one.
fn leader(shard: &Shard, topic: &str, index: i32) -> Option<BrokerId> {
    let topic = shard.catalog.topics.get(topic).filter(|one| (0..one.partitions).contains(&index));
    topic.map(|topic| BrokerId(shard.config.broker_id(shard.leader(topic, index))))
}

/// Elects leaders: the only replica leads already. Without a list, those that need it are meant: none.
pub(super) fn elect(server: &Server<Broker>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let shard = server.shard().borrow();
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|one| {
        let partitions = one.partitions.iter().map(|&index| {
            let code = match leader(&shard, &one.topic, index) {
                Some(_) => Code::ElectionNotNeeded,
                None => Code::UnknownTopicOrPartition,
            };
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code.number())
                .with_error_message(Some(text(code.text())))
        });
        ReplicaElectionResult::default()
            .with_partition_result(partitions.collect())
            .with_topic(one.topic)
    });
    ElectLeadersResponse::default().with_replica_election_results(topics.collect())
}

/// Moves replicas to a directory: they lie in the only one.
pub(super) fn move_dirs(
    server: &Server<Broker>,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let shard = server.shard().borrow();
    let own = server.service().dir().display().to_string();
    let mut results = Vec::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let partitions = topic.partitions.iter().map(|&index| {
                let code = match shard.slot(TopicRef::Name(&topic.name), index) {
                    Err(code) => code.number(),
                    Ok(_) if dir.path.as_str() != own => Code::LogDirNotFound.number(),
                    Ok(_) => 0,
                };
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code)
            });
            results.push(
                AlterReplicaLogDirTopicResult::default()
                    .with_partitions(partitions.collect())
                    .with_topic_name(topic.name),
            );
        }
    }
    AlterReplicaLogDirsResponse::default().with_results(results)
}

/// Gives partitions other replicas: those that they have.
pub(super) fn reassign(
    server: &Server<Broker>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let shard = server.shard().borrow();
    let refusal = |topic: &str, wanted: &ReassignablePartition| {
        let Some(leader) = leader(&shard, topic, wanted.partition_index) else {
            return Some(Code::UnknownTopicOrPartition);
        };
        match &wanted.replicas {
            None => Some(Code::NoReassignmentInProgress),
            Some(replicas) => (*replicas != [leader]).then_some(Code::InvalidReplicaAssignment),
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let code = refusal(&topic.name, wanted);
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.map_or(0, Code::number))
                .with_error_message(code.map(|code| text(code.text())))
        });
        ReassignableTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None)
        .with_responses(topics.collect())
}

/// Reassignments in progress: none.
pub(super) fn reassignments() -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}

/// The controllers: one, whose log is as long as the catalog had changes.
pub(super) fn quorum(
    server: &Server<Broker>,
    request: DescribeQuorumRequest,
    version: i16,
) -> DescribeQuorumResponse {
    let shard = server.shard().borrow();
    let controller = BrokerId(shard.config.broker_id(CONTROLLER));
    let changes = i64::try_from(shard.catalog.epoch).unwrap_or(i64::MAX);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let described = PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_message(None);
            if topic.topic_name.as_str() != METADATA_TOPIC || partition.partition_index != 0 {
                let code = Code::UnknownTopicOrPartition;
                return described
                    .with_error_code(code.number())
                    .with_error_message(Some(text(code.text())));
            }
            let voter =
                ReplicaState::default().with_replica_id(controller).with_log_end_offset(changes);
            described
                .with_leader_id(controller)
                .with_leader_epoch(LEADER_EPOCH)
                .with_high_watermark(changes)
                .with_current_voters(vec![voter])
        });
        TopicData::default().with_partitions(partitions.collect()).with_topic_name(topic.topic_name)
    });
    let mut response =
        DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect());
    if version >= 2 {
        let listener = Listener::default()
            .with_name(text("PLAINTEXT"))
            .with_host(text(shard.config.plain.host.as_str()))
            .with_port(shard.config.plain.ports.get(CONTROLLER).copied().unwrap_or(0));
        response.nodes =
            vec![Node::default().with_node_id(controller).with_listeners(vec![listener])];
    }
    response
}
