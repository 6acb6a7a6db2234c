//! Consumer groups: finding the coordinator, membership, commits, and their administration.

use std::rc::Rc;

use engine::net::Server;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator as Found;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use logic::group::{Group, Join, Sync};

use super::text;
use crate::code::Code;
use crate::coordinator;
use crate::offsets_topic;
use crate::serve::Broker;

/// Kind of key that names a group.
const GROUP_KEY: i8 = 0;

fn owned(text: Option<StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

/// Refuses when this shard does not coordinate the group.
pub(super) fn check(server: &Server<Broker>, group: &str) -> Result<(), i16> {
    coordinator::slot_of(&server.shard().borrow(), group).map(drop).map_err(Code::number)
}

/// The broker that coordinates each group.
pub(super) async fn find(
    server: &Rc<Server<Broker>>,
    request: FindCoordinatorRequest,
    version: i16,
    tls: bool,
) -> FindCoordinatorResponse {
    let keys = if version >= 4 { request.coordinator_keys } else { vec![request.key] };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let shard = match request.key_type {
            GROUP_KEY => coordinator::shard_of(server, &key).await,
            _ => Err(Code::CoordinatorNotAvailable),
        };
        let one = Found::default().with_key(key);
        found.push(match shard {
            Ok(shard) => {
                let config = Rc::clone(&server.shard().borrow().config);
                let endpoint = config.endpoint(tls);
                one.with_node_id(BrokerId(config.broker_id(shard)))
                    .with_host(text(endpoint.host.as_str()))
                    .with_port(endpoint.ports.get(shard).map_or(0, |port| i32::from(*port)))
            }
            Err(code) => one
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(code.number())
                .with_error_message(Some(text(code.text()))),
        });
    }
    let response = FindCoordinatorResponse::default();
    if version >= 4 {
        return response.with_coordinators(found);
    }
    match found.into_iter().next() {
        Some(one) => response
            .with_node_id(one.node_id)
            .with_host(one.host)
            .with_port(one.port)
            .with_error_code(one.error_code)
            .with_error_message(one.error_message.filter(|_| version >= 1)),
        None => response,
    }
}

/// Joins a group; the answer comes when the generation is complete.
pub(super) async fn join(
    server: &Rc<Server<Broker>>,
    request: JoinGroupRequest,
    (version, client_id, peer): (i16, String, String),
) -> JoinGroupResponse {
    let refused = |code: i16, member_id: StrBytes| {
        JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(-1)
            .with_protocol_name(if version >= 7 { None } else { Some(StrBytes::default()) })
            .with_member_id(member_id)
    };
    if let Err(code) = check(server, &request.group_id) {
        return refused(code, request.member_id);
    }
    let protocols = request.protocols.into_iter();
    let unique = {
        let mut rng = server.cx().rng();
        format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
    };
    let join = Join {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id),
        client_id,
        client_host: format!("/{}", peer.rsplit_once(':').map_or(peer.as_str(), |(host, _)| host)),
        session_ms: request.session_timeout_ms,
        rebalance_ms: if version >= 1 {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.map(|one| (one.name.to_string(), one.metadata.to_vec())).collect(),
        requires_known_id: version >= 4,
        can_skip_assignment: version >= 9,
        unique,
    };
    match coordinator::join(server, join).await {
        Ok(joined) => {
            let members = joined.members.into_iter().map(|(id, instance, metadata)| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(id))
                    .with_group_instance_id(instance.map(text))
                    .with_metadata(metadata.into())
            });
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_type(Some(text(joined.protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(joined.member_id))
                .with_skip_assignment(joined.skip_assignment)
                .with_members(members.collect())
        }
        Err((code, member_id)) => refused(code.number(), text(member_id)),
    }
}

/// Gives or gets an assignment.
pub(super) async fn sync(
    server: &Rc<Server<Broker>>,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    if let Err(code) = check(server, &request.group_id) {
        return SyncGroupResponse::default().with_error_code(code);
    }
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        member_id: request.member_id.to_string(),
        instance_id: owned(request.group_instance_id),
        generation: request.generation_id,
        protocol_type: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: assignments
            .map(|one| (one.member_id.to_string(), one.assignment.to_vec()))
            .collect(),
    };
    match coordinator::sync(server, &request.group_id, sync).await {
        Ok(assigned) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(assigned.protocol_type)))
            .with_protocol_name(Some(text(assigned.protocol)))
            .with_assignment(assigned.assignment.into()),
        Err(code) => SyncGroupResponse::default().with_error_code(code.number()),
    }
}

/// A sign of life.
pub(super) fn heartbeat(
    server: &Rc<Server<Broker>>,
    request: &HeartbeatRequest,
) -> HeartbeatResponse {
    let beat = check(server, &request.group_id).and_then(|()| {
        let instance = request.group_instance_id.as_deref();
        let (group, member, generation) =
            (&request.group_id, &request.member_id, request.generation_id);
        coordinator::change(server, |groups, now_ms, _| {
            groups.heartbeat(group, member, instance, generation, now_ms)
        })
        .map_err(|refused| refused.number())
    });
    HeartbeatResponse::default().with_error_code(beat.err().unwrap_or(0))
}

/// The end of members.
pub(super) fn leave(
    server: &Rc<Server<Broker>>,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    if let Err(code) = check(server, &request.group_id) {
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let leaving = if version >= 3 {
        request.members
    } else {
        vec![MemberIdentity::default().with_member_id(request.member_id)]
    };
    let mut members = Vec::with_capacity(leaving.len());
    for one in leaving {
        let left = coordinator::change(server, |groups, now_ms, effects| {
            let instance = one.group_instance_id.as_deref();
            groups.leave(&request.group_id, &one.member_id, instance, now_ms, effects)
        });
        members.push(
            MemberResponse::default()
                .with_member_id(one.member_id)
                .with_group_instance_id(one.group_instance_id)
                .with_error_code(left.err().map_or(0, |refused| refused.number())),
        );
    }
    if version >= 3 {
        return LeaveGroupResponse::default().with_members(members);
    }
    let code = members.first().map_or(0, |member| member.error_code);
    LeaveGroupResponse::default().with_error_code(code)
}

/// Groups in detail.
pub(super) fn describe(
    server: &Server<Broker>,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let shard = server.shard().borrow();
    let groups = request.groups.into_iter().map(|id| {
        let result = DescribedGroup::default().with_group_id(id.clone());
        if let Err(code) = coordinator::slot_of(&shard, &id) {
            return result.with_error_code(code.number());
        }
        match shard.coordinator.groups.get(&id) {
            Some(group) => described(result, group),
            None if version >= 6 => result
                .with_group_state(text("Dead"))
                .with_error_code(Code::GroupIdNotFound.number())
                .with_error_message(Some(text(Code::GroupIdNotFound.text()))),
            None => result.with_group_state(text("Dead")),
        }
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn described(result: DescribedGroup, group: &Group) -> DescribedGroup {
    let members = group.members.iter().map(|(id, member)| {
        DescribedGroupMember::default()
            .with_member_id(text(id.as_str()))
            .with_group_instance_id(member.instance_id.clone().map(text))
            .with_client_id(text(member.client_id.as_str()))
            .with_client_host(text(member.client_host.as_str()))
            .with_member_metadata(member.metadata(&group.protocol).to_vec().into())
            .with_member_assignment(member.assignment.clone().into())
    });
    result
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(group.protocol_type.as_str()))
        .with_protocol_data(text(group.protocol.as_str()))
        .with_members(members.collect())
}

/// The groups of this shard.
pub(super) fn list(server: &Server<Broker>, request: &ListGroupsRequest) -> ListGroupsResponse {
    let shard = server.shard().borrow();
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
    };
    let groups = shard.coordinator.groups.iter().filter(|(_, group)| {
        wanted(&request.states_filter, group.state.name())
            && wanted(&request.types_filter, "classic")
    });
    let listed = groups.map(|(id, group)| {
        ListedGroup::default()
            .with_group_id(GroupId(text(id.as_str())))
            .with_protocol_type(text(group.protocol_type.as_str()))
            .with_group_state(text(group.state.name()))
            .with_group_type(text("classic"))
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}

/// Deletes groups without members, with their offsets.
pub(super) async fn delete(
    server: &Rc<Server<Broker>>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let deleted = delete_one(server, &group).await;
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group)
                .with_error_code(deleted.err().unwrap_or(0)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(server: &Rc<Server<Broker>>, group: &str) -> Result<(), i16> {
    check(server, group)?;
    let partitions = {
        let shard = server.shard().borrow();
        shard.coordinator.groups.may_delete(group).map_err(|refused| refused.number())?
    };
    let offsets = partitions.iter().map(|one| offsets_topic::offset(group, one, None));
    let records = offsets.chain([offsets_topic::group_gone(group)]).collect();
    coordinator::store(server, group, records).await.map_err(Code::number)?;
    server.shard().borrow_mut().coordinator.groups.remove(group);
    Ok(())
}
