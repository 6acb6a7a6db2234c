//! Tools of a cluster against a broker whose partitions have one replica each: what they ask for is there already, or
//! refused with the reason.

mod common;

use common::Broker;
use common::client::{Client, name};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId,
    DescribeQuorumRequest, ElectLeadersRequest, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;

const TOPIC: &str = "replicas";

const UNKNOWN: i16 = 3;
const INVALID_ASSIGNMENT: i16 = 39;
const NO_SUCH_DIR: i16 = 57;
const NOT_NEEDED: i16 = 84;
const NOT_IN_PROGRESS: i16 = 85;

fn connected(broker: &Broker) -> Client {
    let mut client = Client::connect(broker.address()).expect("it listens");
    assert_eq!(client.create(TOPIC, 2).expect("an answer").error_code, 0);
    client
}

#[test]
fn the_only_replica_leads_already() {
    let broker = Broker::start(2, &[]);
    let mut client = connected(&broker);
    let wanted = |topic: &str| {
        TopicPartitions::default().with_topic(name(topic)).with_partitions(vec![0, 1, 2])
    };
    let request = ElectLeadersRequest::default()
        .with_topic_partitions(Some(vec![wanted(TOPIC), wanted("none")]));
    for version in 0..=2 {
        let response = client.call(&request, version).expect("an answer");
        let codes: Vec<Vec<i16>> = response
            .replica_election_results
            .iter()
            .map(|topic| topic.partition_result.iter().map(|one| one.error_code).collect())
            .collect();
        assert_eq!(codes, [[NOT_NEEDED, NOT_NEEDED, UNKNOWN], [UNKNOWN; 3]]);
    }
    let all = ElectLeadersRequest::default().with_topic_partitions(None);
    let response = client.call(&all, 2).expect("an answer");
    assert_eq!((response.error_code, response.replica_election_results.len()), (0, 0));
}

#[test]
fn partitions_stay_where_they_are() {
    let broker = Broker::start(2, &[]);
    let mut client = connected(&broker);
    let metadata = client.call(&MetadataRequest::default().with_topics(None), 9).expect("topics");
    let topic = metadata.topics.iter().find(|one| one.name == Some(name(TOPIC))).expect("made");
    let leader = |index: i32| {
        topic.partitions.iter().find(|one| one.partition_index == index).expect("made").leader_id
    };
    let wanted = |index: i32, replicas: Option<Vec<BrokerId>>| {
        ReassignablePartition::default().with_partition_index(index).with_replicas(replicas)
    };
    let partitions = vec![
        wanted(0, Some(vec![leader(0)])),
        wanted(0, Some(vec![leader(1)])),
        wanted(0, Some(vec![leader(0), leader(1)])),
        wanted(1, None),
        wanted(2, Some(vec![leader(0)])),
    ];
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![
        ReassignableTopic::default().with_name(name(TOPIC)).with_partitions(partitions),
    ]);
    for version in 0..=1 {
        let response = client.call(&request, version).expect("an answer");
        let codes: Vec<i16> =
            response.responses[0].partitions.iter().map(|one| one.error_code).collect();
        let expected = [0, INVALID_ASSIGNMENT, INVALID_ASSIGNMENT, NOT_IN_PROGRESS, UNKNOWN];
        assert_eq!(codes, expected);
    }
    let all = ListPartitionReassignmentsRequest::default().with_topics(None);
    let listed = client.call(&all, 0).expect("an answer");
    assert_eq!((listed.error_code, listed.topics.len()), (0, 0));
}

#[test]
fn there_is_one_directory() {
    let broker = Broker::start(1, &[]);
    let mut client = connected(&broker);
    let own = broker.data.0.join("broker").display().to_string();
    let wanted = |path: &str| {
        AlterReplicaLogDir::default().with_path(StrBytes::from_string(path.to_owned())).with_topics(
            vec![
                AlterReplicaLogDirTopic::default()
                    .with_name(name(TOPIC))
                    .with_partitions(vec![0, 9]),
            ],
        )
    };
    let request =
        AlterReplicaLogDirsRequest::default().with_dirs(vec![wanted(&own), wanted("/other")]);
    for version in 1..=2 {
        let response = client.call(&request, version).expect("an answer");
        let codes: Vec<i16> = response
            .results
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|one| one.error_code))
            .collect();
        assert_eq!(codes, [0, UNKNOWN, NO_SUCH_DIR, UNKNOWN]);
    }
}

#[test]
fn there_is_one_controller() {
    let broker = Broker::start(2, &[]);
    let mut client = connected(&broker);
    let wanted = |topic: &str, index: i32| {
        TopicData::default()
            .with_topic_name(name(topic))
            .with_partitions(vec![PartitionData::default().with_partition_index(index)])
    };
    let request = DescribeQuorumRequest::default().with_topics(vec![
        wanted("__cluster_metadata", 0),
        wanted("__cluster_metadata", 1),
        wanted(TOPIC, 0),
    ]);
    for version in 0..=2 {
        let response = client.call(&request, version).expect("an answer");
        let found: Vec<_> = response.topics.iter().map(|topic| &topic.partitions[0]).collect();
        assert_eq!([found[0].error_code, found[1].error_code, found[2].error_code], [0, 3, 3]);
        assert_eq!(found[0].leader_id, BrokerId(64));
        assert!(found[0].high_watermark > 0, "a topic was made");
        let voters: Vec<_> = found[0].current_voters.iter().map(|one| one.replica_id).collect();
        assert_eq!(voters, [BrokerId(64)]);
        if version == 2 {
            assert_eq!(response.nodes[0].listeners[0].port, broker.port + 1);
        }
    }
}

#[test]
fn what_has_a_configuration_is_listed() {
    let broker = Broker::start(2, &[]);
    let mut client = connected(&broker);
    let mut list = |kinds: &[i8], version| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = client.call(&request, version).expect("an answer");
        let found = response.config_resources.iter();
        let found = found.map(|one| (one.resource_type, one.resource_name.to_string()));
        (response.error_code, found.collect::<Vec<_>>())
    };
    let (topic, brokers) = ((2, TOPIC.to_owned()), [(4, "64".to_owned()), (4, "65".to_owned())]);
    assert_eq!(list(&[4], 1), (0, brokers.to_vec()));
    let (code, all) = list(&[], 1);
    assert!(code == 0 && all.contains(&topic) && all.ends_with(&brokers), "{all:?}");
    assert_eq!(list(&[8, 16, 32], 1), (0, Vec::new()));
    assert_eq!(list(&[3], 1), (35, Vec::new()));
    assert_eq!(list(&[], 0), (0, Vec::new()), "client metrics alone");
}
