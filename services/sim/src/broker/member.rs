//! Members of consumer groups in the simulated world: they find the coordinator, join, assign, commit, leave and come
//! back, by the classic protocol, and say in the name of others what must be refused.
//!
//! A member has one request under way. Every answer is checked against the group's shadow model. Invariant: what a
//! leader assigns follows from the generation and its members alone, so that sending it again changes nothing. Next:
//! `group` for what must hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::driver::sim::World;
use engine::rng::Rng;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::{Decodable, StrBytes};

use super::group::{
    Asking, COORDINATOR_NOT_AVAILABLE, Claim, FENCED, Group, ID_REQUIRED, ILLEGAL_GENERATION,
    NOT_COORDINATOR, REBALANCE, UNKNOWN_MEMBER,
};
use super::link::{ANSWER_NS, Heard, Link, open};
use super::peer::topic;
use super::{PORT, Setup};

const FIND: i16 = 3;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const COMMIT: i16 = 8;
const FETCH: i16 = 7;

/// The shortest session that is allowed.
const SESSION_MS: i32 = 6_000;
/// How long a rebalance waits for a member.
const REBALANCE_MS: i32 = 400;
/// The longest wait between two looks for an answer.
const POLL_MAX_NS: u64 = 4_000_000;
/// The longest pause between two requests.
const PAUSE_NS: u64 = 40_000_000;

/// What is under way.
#[derive(Debug)]
enum Asked {
    Find,
    Join(Asking),
    Sync(Claim),
    Heartbeat(Claim),
    Commit { claim: Claim, partition: i32, value: i64 },
    Fetch { partition: i32, sent: u64 },
    Leave { id: String, asking: Asking },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Find,
    Join,
    Sync,
    Stable,
}

/// A member of a group.
pub(super) struct Member {
    pub(super) group: usize,
    instance: Option<String>,
    join_version: i16,
    partitions: i32,
    link: Link,
    poll_ns: u64,
    next_ns: u64,
    asked: Option<Asked>,
    phase: Phase,
    id: String,
    generation: i32,
    /// Of the leader: what it has to assign.
    plan: BTreeMap<String, Vec<u8>>,
    assigned: Vec<i32>,
    /// Ids that it had.
    former: Vec<(String, i32)>,
    /// Nobody leaves or comes back any more.
    pub(super) calm: bool,
    /// Commits looked up since it was told to be calm.
    looked: i32,
    answers: u64,
    rebalances: u64,
    refused: u64,
    commits: u64,
}

impl Member {
    pub(super) fn new(
        group: usize,
        instance: Option<String>,
        setup: &Setup,
        rng: &mut Rng,
    ) -> Self {
        Self {
            group,
            instance,
            join_version: *rng.pick(&[7, 9]).unwrap_or(&9),
            partitions: setup.partitions,
            link: Link::new(setup.shards),
            poll_ns: 0,
            next_ns: 0,
            asked: None,
            phase: Phase::Find,
            id: String::new(),
            generation: -1,
            plan: BTreeMap::new(),
            assigned: Vec::new(),
            former: Vec::new(),
            calm: false,
            looked: 0,
            answers: 0,
            rebalances: 0,
            refused: 0,
            commits: 0,
        }
    }

    pub(super) const fn wake_ns(&self) -> u64 {
        self.link.wake_ns
    }

    pub(super) const fn counts(&self) -> [u64; 4] {
        [self.answers, self.rebalances, self.refused, self.commits]
    }

    /// Its generation and assignment, once every commit was looked up and nothing goes on.
    pub(super) fn settled(&self) -> Option<(i32, &[i32])> {
        let settled = self.phase == Phase::Stable && self.looked >= self.partitions;
        settled.then_some((self.generation, &self.assigned))
    }

    pub(super) fn describe(&self) -> String {
        let Self { group, id, generation, phase, assigned, .. } = self;
        let name = self.instance.as_deref().unwrap_or("dynamic");
        let waits = self.asked.is_some();
        format!(
            "{name} member {id} of {group}: {phase:?} {generation} {assigned:?}, waits: {waits}"
        )
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(format!("group{}", self.group)))
    }

    fn instance(&self) -> Option<StrBytes> {
        self.instance.clone().map(StrBytes::from_string)
    }

    pub(super) fn act(
        &mut self,
        world: &World,
        rng: &mut Rng,
        group: &mut Group,
    ) -> Result<(), String> {
        let now_ns = world.now().mono_ns;
        if self.link.end.is_none() {
            self.link.connect(world);
            self.asked = None;
        }
        if self.asked.is_none() && now_ns >= self.next_ns {
            let asked = self.ask(rng, group);
            group.tell(format!("{now_ns} {} asks {asked:?}", self.describe()));
            self.asked = Some(asked);
            self.poll_ns = 100_000;
        }
        match self.link.pump(world) {
            Heard::Lost => {
                self.link.lose(now_ns);
                // It may be coordinated elsewhere, and its requests may have arrived.
                self.asked = None;
            }
            Heard::Frames(frames) => {
                for frame in frames {
                    self.answers += 1;
                    self.next_ns = now_ns + rng.below(PAUSE_NS);
                    let (_, body) = open(frame);
                    let answered = self.answer(body, now_ns, group);
                    group.tell(format!("{now_ns} {} was answered", self.describe()));
                    answered?;
                }
                if self.asked.is_some() && now_ns > self.link.heard_ns + ANSWER_NS {
                    self.link.lose(now_ns);
                }
            }
        }
        if self.link.end.is_some() {
            self.poll_ns = (self.poll_ns * 2).clamp(100_000, POLL_MAX_NS);
            let idle = if self.asked.is_none() { self.next_ns } else { 0 };
            self.link.wake_ns = idle.max(now_ns + self.poll_ns);
        }
        Ok(())
    }

    fn ask(&mut self, rng: &mut Rng, group: &mut Group) -> Asked {
        match self.phase {
            Phase::Find => {
                let request = FindCoordinatorRequest::default().with_key(self.group_id().0);
                self.link.request(&request, FIND);
                Asked::Find
            }
            Phase::Join => self.join(group),
            Phase::Sync => self.sync(group),
            Phase::Stable if self.calm && self.looked < self.partitions => {
                self.fetch(self.looked, group)
            }
            Phase::Stable => match rng.below(if self.calm { 8 } else { 20 }) {
                0..=4 => self.commit(rng, group),
                5..=6 => self.fetch(rng.below(self.partitions as u64) as i32, group),
                8 | 9 => self.pretend(rng, group),
                10 => self.come_back(group),
                11 if self.instance.is_none() => self.leave(group),
                _ => {
                    let claim = group.claim(&self.id, self.generation);
                    self.heartbeat(claim)
                }
            },
        }
    }

    fn join(&mut self, group: &Group) -> Asked {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(b"topics"));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_member_id(StrBytes::from_string(self.id.clone()))
            .with_group_instance_id(self.instance())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        self.link.request(&request, self.join_version);
        Asked::Join(group.ask())
    }

    fn sync(&mut self, group: &mut Group) -> Asked {
        if !self.plan.is_empty() {
            group.planned(self.generation, self.plan.clone());
        }
        let assignments = self.plan.iter().map(|(id, bytes)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(StrBytes::from_string(id.clone()))
                .with_assignment(bytes.clone().into())
        });
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(StrBytes::from_string(self.id.clone()))
            .with_group_instance_id(self.instance())
            .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
            .with_protocol_name(Some(StrBytes::from_static_str("range")))
            .with_assignments(assignments.collect());
        self.link.request(&request, SYNC);
        Asked::Sync(group.claim(&self.id, self.generation))
    }

    fn heartbeat(&mut self, claim: Claim) -> Asked {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(claim.generation)
            .with_member_id(StrBytes::from_string(claim.id.clone()))
            .with_group_instance_id(self.instance());
        self.link.request(&request, HEARTBEAT);
        Asked::Heartbeat(claim)
    }

    fn send_commit(&mut self, claim: Claim, partition: i32, group: &mut Group) -> Asked {
        let value = group.commit(partition);
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(value)
            .with_committed_metadata(Some(StrBytes::default()));
        let topics =
            OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![one]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(claim.generation)
            .with_member_id(StrBytes::from_string(claim.id.clone()))
            .with_group_instance_id(self.instance())
            .with_topics(vec![topics]);
        self.link.request(&request, COMMIT);
        Asked::Commit { claim, partition, value }
    }

    fn commit(&mut self, rng: &mut Rng, group: &mut Group) -> Asked {
        let claim = group.claim(&self.id, self.generation);
        match rng.pick(&self.assigned) {
            Some(&partition) => self.send_commit(claim, partition, group),
            None => self.heartbeat(claim),
        }
    }

    fn fetch(&mut self, partition: i32, group: &mut Group) -> Asked {
        let topics = OffsetFetchRequestTopic::default()
            .with_name(topic())
            .with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(self.group_id())
            .with_topics(Some(vec![topics]));
        self.link.request(&request, FETCH);
        Asked::Fetch { partition, sent: group.fetch() }
    }

    /// Says something as somebody it is not: a member of the generation before, one that it was, or nobody.
    fn pretend(&mut self, rng: &mut Rng, group: &mut Group) -> Asked {
        let claim = match (rng.below(3), self.former.last()) {
            (0, _) => group.claim(&self.id, self.generation - 1),
            (1, Some((id, generation))) => group.claim(id, *generation),
            _ => group.claim("", self.generation),
        };
        if rng.chance(1, 2) {
            let partition = rng.below(self.partitions as u64) as i32;
            return self.send_commit(claim, partition, group);
        }
        self.heartbeat(claim)
    }

    /// Its process starts anew: a static member remembers what it is called, others nothing.
    fn come_back(&mut self, group: &Group) -> Asked {
        self.former = vec![(std::mem::take(&mut self.id), self.generation)];
        self.enter(Phase::Join);
        self.join(group)
    }

    fn leave(&mut self, group: &Group) -> Asked {
        let one = MemberIdentity::default().with_member_id(StrBytes::from_string(self.id.clone()));
        let request =
            LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![one]);
        self.link.request(&request, LEAVE);
        Asked::Leave { id: self.id.clone(), asking: group.ask() }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        if phase != Phase::Stable {
            self.assigned.clear();
            self.looked = 0;
        }
        if phase != Phase::Sync {
            self.plan.clear();
        }
    }

    /// A request was refused: what follows from that.
    fn refused(&mut self, code: i16, now_ns: u64) -> Result<(), String> {
        self.refused += 1;
        match code {
            REBALANCE | ILLEGAL_GENERATION => self.enter(Phase::Join),
            UNKNOWN_MEMBER | FENCED => {
                self.former = vec![(std::mem::take(&mut self.id), self.generation)];
                self.enter(Phase::Join);
            }
            COORDINATOR_NOT_AVAILABLE | NOT_COORDINATOR => {
                self.phase = Phase::Find;
                self.link.next_shard(now_ns);
            }
            code => return Err(format!("error {code} for {}", self.describe())),
        }
        Ok(())
    }

    fn answer(&mut self, body: Bytes, now_ns: u64, group: &mut Group) -> Result<(), String> {
        let Some(asked) = self.asked.take() else { return Err("an answer to nothing".into()) };
        match asked {
            Asked::Find => {
                let found: FindCoordinatorResponse = decode(body, FIND)?;
                if found.error_code != 0 {
                    return self.refused(found.error_code, now_ns);
                }
                self.link.shard = (found.port - i32::from(PORT) - 1) as usize;
                self.link.lose(now_ns);
                self.enter(Phase::Join);
                Ok(())
            }
            Asked::Join(asking) => {
                let joined: JoinGroupResponse = decode(body, self.join_version)?;
                self.on_joined(&joined, asking, now_ns, group)
            }
            Asked::Sync(claim) => {
                let synced: SyncGroupResponse = decode(body, SYNC)?;
                if synced.error_code != 0 {
                    return self.refused(synced.error_code, now_ns);
                }
                let partitions = parse(&synced.assignment)
                    .ok_or_else(|| format!("an assignment {:?}", synced.assignment))?;
                group.assigned(&claim, &synced.assignment, &partitions)?;
                self.assigned = partitions;
                self.enter(Phase::Stable);
                Ok(())
            }
            Asked::Heartbeat(claim) => {
                let answer: HeartbeatResponse = decode(body, HEARTBEAT)?;
                self.on_checked(&claim, answer.error_code, now_ns, group)
            }
            Asked::Commit { claim, partition, value } => {
                let answer: OffsetCommitResponse = decode(body, COMMIT)?;
                let code = answer.topics[0].partitions[0].error_code;
                group.committed(partition, value, code);
                self.commits += u64::from(code == 0);
                self.on_checked(&claim, code, now_ns, group)
            }
            Asked::Fetch { partition, sent } => {
                let answer: OffsetFetchResponse = decode(body, FETCH)?;
                if answer.error_code != 0 {
                    return self.refused(answer.error_code, now_ns);
                }
                let found = answer.topics[0].partitions[0].committed_offset;
                group.fetched(partition, found, sent)?;
                self.looked += i32::from(self.calm && partition == self.looked);
                Ok(())
            }
            Asked::Leave { id, asking } => {
                let answer: LeaveGroupResponse = decode(body, LEAVE)?;
                self.on_left(&answer, id, asking, now_ns, group)
            }
        }
    }

    fn on_left(
        &mut self,
        answer: &LeaveGroupResponse,
        id: String,
        asking: Asking,
        now_ns: u64,
        group: &mut Group,
    ) -> Result<(), String> {
        let code = match answer.error_code {
            0 => answer.members[0].error_code,
            code => code,
        };
        if code != 0 {
            return self.refused(code, now_ns);
        }
        group.left(&id, asking);
        self.former = vec![(id, self.generation)];
        self.id.clear();
        self.enter(Phase::Join);
        Ok(())
    }

    /// The answer to what a member may say, or somebody may not.
    fn on_checked(
        &mut self,
        claim: &Claim,
        code: i16,
        now_ns: u64,
        group: &Group,
    ) -> Result<(), String> {
        group.answered(claim, code)?;
        let about_me = claim.id == self.id && claim.generation == self.generation;
        match code {
            0 => Ok(()),
            COORDINATOR_NOT_AVAILABLE | NOT_COORDINATOR => self.refused(code, now_ns),
            _ if !about_me => Ok(()),
            code => self.refused(code, now_ns),
        }
    }

    fn on_joined(
        &mut self,
        joined: &JoinGroupResponse,
        asking: Asking,
        now_ns: u64,
        group: &mut Group,
    ) -> Result<(), String> {
        if joined.error_code == ID_REQUIRED {
            self.id = joined.member_id.to_string();
            return Ok(());
        }
        if joined.error_code != 0 {
            return self.refused(joined.error_code, now_ns);
        }
        let members: Vec<String> =
            joined.members.iter().map(|one| one.member_id.to_string()).collect();
        self.id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        self.rebalances += 1;
        group.joined(&self.id, self.generation, &joined.leader, &members, asking)?;
        self.enter(Phase::Sync);
        if joined.leader == joined.member_id && !joined.skip_assignment {
            self.plan = plan(&self.id, self.generation, &members, self.partitions);
        }
        Ok(())
    }
}

fn decode<R: Decodable>(mut body: Bytes, version: i16) -> Result<R, String> {
    R::decode(&mut body, version).map_err(|error| format!("an answer to a member: {error}"))
}

/// Who gets what.
fn plan(
    leader: &str,
    generation: i32,
    members: &[String],
    partitions: i32,
) -> BTreeMap<String, Vec<u8>> {
    let mut members = members.to_vec();
    members.sort_unstable();
    let count = members.len() as i32;
    let assign = |(at, id): (i32, String)| {
        let mine = (0..partitions).filter(|partition| (partition + generation) % count == at);
        let mine: Vec<String> = mine.map(|partition| partition.to_string()).collect();
        (id, format!("{leader}/{generation}:{}", mine.join(",")).into_bytes())
    };
    (0..).zip(members).map(assign).collect()
}

/// The partitions that are assigned.
fn parse(assignment: &[u8]) -> Option<Vec<i32>> {
    let text = std::str::from_utf8(assignment).ok()?;
    let (_, list) = text.rsplit_once(':')?;
    list.split(',').filter(|one| !one.is_empty()).map(|one| one.parse().ok()).collect()
}
