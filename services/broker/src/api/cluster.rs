//! Brokers, producers and directories.

use std::collections::BTreeMap;
use std::rc::Rc;

use engine::net::Server;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse,
    InitProducerIdRequest, InitProducerIdResponse, ProducerId, TopicName,
};
use wire::kafka::TopicRef;

use super::text;
use crate::code::Code;
use crate::control::{self, CONTROLLER, Change, PRODUCER_ID_BLOCK};
use crate::serve::Broker;

/// Gives an idempotent producer a number of its own.
pub(super) async fn producer_id(
    server: &Rc<Server<Broker>>,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: Code| {
        InitProducerIdResponse::default()
            .with_error_code(code.number())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(Code::TransactionalIdAuthorizationFailed);
    }
    match next_producer_id(server).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)),
        Err(code) => refused(code),
    }
}

async fn next_producer_id(server: &Rc<Server<Broker>>) -> Result<i64, Code> {
    loop {
        {
            let mut shard = server.shard().borrow_mut();
            let (next, end) = shard.producer_ids;
            if next < end {
                shard.producer_ids.0 += 1;
                return Ok(next);
            }
        }
        let block =
            control::request(server, Change::ProducerIds).await.map_err(|(code, _)| code)?;
        let first = block.producer_id;
        // Another task may have got a block meanwhile; what is left of that one is skipped.
        server.shard().borrow_mut().producer_ids = (first, first + PRODUCER_ID_BLOCK);
    }
}

/// The brokers there are.
pub(super) fn describe(
    server: &Server<Broker>,
    request: &DescribeClusterRequest,
    tls: bool,
) -> DescribeClusterResponse {
    let shard = server.shard().borrow();
    let config = &shard.config;
    if request.endpoint_type != 1 {
        return DescribeClusterResponse::default()
            .with_error_code(Code::InvalidRequest.number())
            .with_error_message(Some(text("only brokers have endpoints")));
    }
    let endpoint = config.endpoint(tls);
    let brokers = endpoint.ports.iter().enumerate().map(|(shard, port)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(config.broker_id(shard)))
            .with_host(text(endpoint.host.as_str()))
            .with_port(i32::from(*port))
            .with_rack(Some(text(config.node.to_string())))
    });
    DescribeClusterResponse::default()
        .with_cluster_id(text(shard.catalog.cluster_id.as_str()))
        .with_controller_id(BrokerId(config.broker_id(CONTROLLER)))
        .with_brokers(brokers.collect())
}

/// Sizes of this shard's partitions.
pub(super) fn log_dirs(
    server: &Server<Broker>,
    request: &DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let shard = server.shard().borrow();
    let wanted = |topic: &str, index: i32| {
        request.topics.as_ref().is_none_or(|topics| {
            topics
                .iter()
                .any(|one| one.topic.0.as_str() == topic && one.partitions.contains(&index))
        })
    };
    let mut topics: BTreeMap<Rc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in shard.partitions().filter(|one| wanted(&one.topic, one.index)) {
        let size = i64::try_from(partition.len_bytes()).unwrap_or(i64::MAX);
        topics.entry(Rc::clone(&partition.topic)).or_default().push(
            DescribeLogDirsPartition::default()
                .with_partition_index(partition.index)
                .with_partition_size(size),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        DescribeLogDirsTopic::default()
            .with_name(TopicName(text(&*topic)))
            .with_partitions(partitions)
    });
    let dir = DescribeLogDirsResult::default()
        .with_log_dir(text(server.service().dir().display().to_string()))
        .with_topics(topics.collect());
    DescribeLogDirsResponse::default().with_results(vec![dir])
}

/// Producers of partitions.
pub(super) fn producers(
    server: &Server<Broker>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut shard = server.shard().borrow_mut();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let response = PartitionResponse::default().with_partition_index(index);
            let slot = shard.slot(TopicRef::Name(&topic.name), index);
            let partition =
                slot.and_then(|slot| shard.partition(slot).ok_or(Code::UnknownTopicOrPartition));
            let partition = match partition {
                Ok(partition) => partition,
                Err(code) => {
                    return response
                        .with_error_code(code.number())
                        .with_error_message(Some(text(code.text())));
                }
            };
            let active = partition.producers().iter().map(|(id, producer)| {
                let last = producer.batches.back();
                ProducerState::default()
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(i32::from(producer.epoch))
                    .with_last_sequence(last.map_or(-1, |last| last.last_sequence))
                    .with_last_timestamp(last.map_or(-1, |last| last.timestamp_ms))
                    .with_coordinator_epoch(-1)
                    .with_current_txn_start_offset(-1)
            });
            response.with_active_producers(active.collect())
        });
        TopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
