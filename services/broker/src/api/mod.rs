//! Everything off the hot path: one function for each kind of request.
//!
//! A request comes decoded, is answered by an async function, and its answer is encoded here. What concerns
//! topics is asked of the controller; what concerns a partition is answered by the shard that leads it, which is where
//! clients send it. Next: a module for each subject.

pub(crate) mod by_id;
mod cluster;
mod commits;
mod configs;
mod groups;
mod offsets;
mod replicas;
mod topics;
pub(crate) mod versions;

use std::rc::Rc;

use bytes::BytesMut;
use engine::net::Server;
use kafka_protocol::messages::{RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;
use wire::kafka::api::Api;
use wire::kafka::frame;

use crate::serve::Broker;
use crate::work::Call;

/// A string of the protocol.
pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Answers a request: the whole frame.
pub(crate) async fn answer(server: &Rc<Server<Broker>>, call: Call) -> Vec<u8> {
    let (key, version, correlation_id) = (call.key, call.version, call.correlation_id);
    let throttle_ms = call.throttle_ms;
    let response = dispatch(server, call).await;
    let mut out = Vec::new();
    let (Some(api), Some(response)) = (Api::find(key), response) else { return out };
    let start = frame::begin_response(&mut out, api, version, correlation_id);
    let mut body = BytesMut::new();
    if let Err(error) = response.encode(&mut body, api.decoded_as(version)) {
        // Ours to have prevented: the client gets what it can tell from silence.
        let cx = server.cx();
        let pairs: [(&str, &dyn std::fmt::Display); 3] =
            [("request", &api.name), ("version", &version), ("why", &error)];
        cx.log().error("broker", cx.now(), "answer not encoded", &pairs);
        return Vec::new();
    }
    if key == LOG_DIRS && version >= CORDONED_FROM {
        tell_cordoned(&mut body);
    }
    if throttle_ms > 0
        && api.begins_with_throttle(version)
        && let Some(place) = body.first_chunk_mut::<4>()
    {
        *place = throttle_ms.to_be_bytes();
    }
    out.extend_from_slice(&body);
    frame::end(&mut out, start, 0);
    out
}

/// `DescribeLogDirs`.
const LOG_DIRS: i16 = 35;
/// The version of it that says of a directory whether it is cordoned: takes no more partitions (KIP-1066).
const CORDONED_FROM: i16 = 5;

/// Puts that before the two ends of structures: of the directory, of which there is one, and of the answer.
fn tell_cordoned(body: &mut BytesMut) {
    let ends = body.split_off(body.len().saturating_sub(2));
    body.extend_from_slice(&[0]);
    body.unsplit(ends);
}

async fn dispatch(server: &Rc<Server<Broker>>, call: Call) -> Option<ResponseKind> {
    let (version, tls) = (call.version, call.tls);
    let client = (version, call.client_id, call.peer);
    Some(match call.request {
        RequestKind::Metadata(request) => {
            topics::metadata(server, request, version, tls).await.into()
        }
        RequestKind::CreateTopics(request) => topics::create(server, request).await.into(),
        RequestKind::DeleteTopics(request) => topics::delete(server, request, version).await.into(),
        RequestKind::CreatePartitions(request) => topics::grow(server, request).await.into(),
        RequestKind::DescribeTopicPartitions(request) => {
            topics::describe_partitions(server, &request).into()
        }
        RequestKind::DescribeConfigs(request) => configs::describe(server, request).into(),
        RequestKind::AlterConfigs(request) => configs::alter(server, request).await.into(),
        RequestKind::IncrementalAlterConfigs(request) => {
            configs::alter_incrementally(server, request).await.into()
        }
        RequestKind::ListOffsets(request) => offsets::list(server, request, version).await.into(),
        RequestKind::OffsetForLeaderEpoch(request) => offsets::for_epoch(server, request).into(),
        RequestKind::DeleteRecords(request) => offsets::delete(server, request).await.into(),
        RequestKind::InitProducerId(request) => cluster::producer_id(server, &request).await.into(),
        RequestKind::DescribeCluster(request) => cluster::describe(server, &request, tls).into(),
        RequestKind::DescribeLogDirs(request) => cluster::log_dirs(server, &request).into(),
        RequestKind::AlterReplicaLogDirs(request) => replicas::move_dirs(server, request).into(),
        RequestKind::ElectLeaders(request) => replicas::elect(server, request).into(),
        RequestKind::AlterPartitionReassignments(request) => {
            replicas::reassign(server, request).into()
        }
        RequestKind::ListPartitionReassignments(_) => replicas::reassignments().into(),
        RequestKind::DescribeQuorum(request) => replicas::quorum(server, request, version).into(),
        RequestKind::ListConfigResources(request) => {
            configs::resources(server, &request, version).into()
        }
        RequestKind::DescribeProducers(request) => cluster::producers(server, request).into(),
        RequestKind::FindCoordinator(request) => {
            groups::find(server, request, version, tls).await.into()
        }
        RequestKind::JoinGroup(request) => groups::join(server, request, client).await.into(),
        RequestKind::SyncGroup(request) => groups::sync(server, request).await.into(),
        RequestKind::Heartbeat(request) => groups::heartbeat(server, &request).into(),
        RequestKind::LeaveGroup(request) => groups::leave(server, request, version).into(),
        RequestKind::DescribeGroups(request) => groups::describe(server, request, version).into(),
        RequestKind::ListGroups(request) => groups::list(server, &request).into(),
        RequestKind::DeleteGroups(request) => groups::delete(server, request).await.into(),
        RequestKind::OffsetCommit(request) => {
            commits::commit(server, request, version).await.into()
        }
        RequestKind::OffsetFetch(request) => commits::fetch(server, request, version).into(),
        RequestKind::OffsetDelete(request) => commits::delete(server, request).await.into(),
        _ => return None,
    })
}
