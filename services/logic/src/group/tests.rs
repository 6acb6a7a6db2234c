//! Scripts for each rule, and a random driver with a shadow of what must hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 30_000;

struct Desk {
    groups: Groups,
    effects: Vec<Effect>,
    now_ms: i64,
    next_token: Token,
}

fn join(member_id: &str) -> Join {
    Join {
        group: "g".into(),
        member_id: member_id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: SESSION_MS,
        rebalance_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), b"meta".to_vec())],
        requires_known_id: false,
        unique: String::new(),
    }
}

impl Desk {
    fn new(initial_delay_ms: i64) -> Self {
        let config = Config { initial_delay_ms, ..Config::default() };
        Self { groups: Groups::new(config), effects: Vec::new(), now_ms: 1000, next_token: 0 }
    }

    fn join(&mut self, mut join: Join) -> Token {
        self.next_token += 1;
        join.unique = self.next_token.to_string();
        self.groups.join(join, self.next_token, self.now_ms, &mut self.effects);
        self.next_token
    }

    fn sync(&mut self, member: &str, generation: i32, assigns: &[(&str, &str)]) -> Token {
        self.next_token += 1;
        let assignments = assigns
            .iter()
            .map(|(member, what)| ((*member).to_owned(), what.as_bytes().to_vec()))
            .collect();
        let sync = Sync {
            member_id: member.into(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let step = self.groups.sync("g", sync, self.next_token, self.now_ms, &mut self.effects);
        if let SyncStep::Store { assignments, generation } = step {
            let effects = &mut self.effects;
            self.groups.stored("g", generation, &assignments, true, self.now_ms, effects);
        }
        self.next_token
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while !self.groups.tick(self.now_ms, 10, &mut self.effects) {}
    }

    fn joined(&mut self, token: Token) -> Option<Result<Joined, (Refused, String)>> {
        let at = self
            .effects
            .iter()
            .position(|one| matches!(one, Effect::Joined(t, _) if *t == token))?;
        match self.effects.remove(at) {
            Effect::Joined(_, answer) => Some(answer),
            _ => None,
        }
    }

    fn synced(&mut self, token: Token) -> Option<Result<Vec<u8>, Refused>> {
        let at = self
            .effects
            .iter()
            .position(|one| matches!(one, Effect::Synced(t, _) if *t == token))?;
        match self.effects.remove(at) {
            Effect::Synced(_, answer) => Some(answer.map(|assigned| assigned.assignment)),
            _ => None,
        }
    }

    /// A stable group of one member; its id.
    fn stable(&mut self) -> String {
        let token = self.join(join(""));
        let joined = self.joined(token).expect("at once").expect("welcome");
        let token = self.sync(&joined.member_id, joined.generation, &[(&joined.member_id, "all")]);
        assert_eq!(self.synced(token), Some(Ok(b"all".to_vec())));
        joined.member_id
    }

    fn state(&self) -> State {
        self.groups.get("g").map_or(State::Empty, |group| group.state)
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), Refused> {
        self.groups.heartbeat("g", member, None, generation, self.now_ms)
    }
}

#[test]
fn a_second_member_waits_until_the_first_joins_again() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    let second = desk.join(join(""));
    assert_eq!(desk.joined(second), None);
    assert_eq!(desk.heartbeat(&first, 1), Err(Refused::RebalanceInProgress));
    let again = desk.join(join(&first));
    let led = desk.joined(again).expect("all are there").expect("welcome");
    let followed = desk.joined(second).expect("all are there").expect("welcome");
    assert_eq!((led.generation, followed.generation), (2, 2));
    assert_eq!(led.leader, first);
    assert_eq!(led.members.len(), 2);
    assert!(followed.members.is_empty());
    let waits = desk.sync(&followed.member_id, 2, &[]);
    assert_eq!(desk.synced(waits), None);
    let gives = desk.sync(&first, 2, &[(&first, "a"), (&followed.member_id, "b")]);
    assert_eq!(desk.synced(gives), Some(Ok(b"a".to_vec())));
    assert_eq!(desk.synced(waits), Some(Ok(b"b".to_vec())));
    assert_eq!(desk.state(), State::Stable);
    assert_eq!(desk.heartbeat(&first, 2), Ok(()));
    assert_eq!(desk.heartbeat(&first, 1), Err(Refused::IllegalGeneration));
    assert_eq!(desk.heartbeat("nobody", 2), Err(Refused::UnknownMemberId));
}

#[test]
fn a_new_member_may_have_to_come_with_the_id_it_is_given() {
    let mut desk = Desk::new(0);
    let token = desk.join(Join { requires_known_id: true, ..join("") });
    let (refused, id) = desk.joined(token).expect("at once").expect_err("an id");
    assert_eq!(refused, Refused::MemberIdRequired);
    let token = desk.join(join(&id));
    assert_eq!(desk.joined(token).expect("at once").expect("welcome").member_id, id);
    let token = desk.join(join("made-up"));
    assert_eq!(desk.joined(token).expect("at once").expect_err("no").0, Refused::UnknownMemberId);
}

#[test]
fn an_id_that_is_not_used_holds_a_rebalance_only_for_its_session() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    let token = desk.join(Join { requires_known_id: true, ..join("") });
    assert!(desk.joined(token).is_some());
    let again = desk.join(join(&first));
    assert_eq!(desk.joined(again), None, "the other one is expected");
    desk.pass(i64::from(SESSION_MS));
    assert!(desk.joined(again).is_some());
}

#[test]
fn an_empty_group_waits_for_more_members_and_longer_while_they_come() {
    let mut desk = Desk::new(3000);
    let first = desk.join(join(""));
    desk.pass(2000);
    let second = desk.join(join(""));
    desk.pass(1000);
    assert_eq!(desk.joined(first), None, "one came");
    desk.pass(3000);
    let led = desk.joined(first).expect("nobody else came").expect("welcome");
    assert_eq!(led.members.len(), 2);
    assert!(desk.joined(second).is_some());
}

#[test]
fn who_is_silent_or_does_not_join_again_is_out() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    desk.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(desk.heartbeat(&first, 1), Ok(()));
    desk.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(desk.state(), State::Stable);
    desk.pass(1);
    assert_eq!(desk.state(), State::Empty);
    assert_eq!(desk.heartbeat(&first, 1), Err(Refused::UnknownMemberId));

    let mut desk = Desk::new(0);
    let first = desk.stable();
    let second = desk.join(join(""));
    for _ in 0..4 {
        desk.pass(7000);
        let _ = desk.heartbeat(&first, 1);
    }
    desk.pass(i64::from(REBALANCE_MS) - 28_000);
    let led = desk.joined(second).expect("the first did not come").expect("welcome");
    assert_eq!((led.leader.as_str(), led.members.len()), (led.member_id.as_str(), 1));
}

#[test]
fn who_does_not_sync_is_out() {
    let mut desk = Desk::new(0);
    let (one, two) = {
        let first = desk.stable();
        let token = desk.join(join(""));
        desk.join(join(&first));
        (first, desk.joined(token).expect("all are there").expect("welcome").member_id)
    };
    let waits = desk.sync(&two, 2, &[]);
    for _ in 0..4 {
        desk.pass(7000);
        let _ = desk.heartbeat(&one, 2);
    }
    desk.pass(2000);
    assert_eq!(desk.synced(waits), Some(Err(Refused::RebalanceInProgress)));
    assert!(!desk.groups.get("g").expect("a group").members.contains_key(&one));
}

#[test]
fn a_member_that_waited_for_its_assignment_has_its_whole_session_then() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    let token = desk.join(join(""));
    desk.join(join(&first));
    let second = desk.joined(token).expect("all are there").expect("welcome").member_id;
    desk.sync(&second, 2, &[]);
    desk.pass(9000);
    desk.sync(&first, 2, &[(&second, "b")]);
    desk.pass(9000);
    assert_eq!(desk.heartbeat(&second, 2), Ok(()));
}

#[test]
fn a_member_that_leaves_makes_the_others_join_again() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    let token = desk.join(join(""));
    desk.join(join(&first));
    let second = desk.joined(token).expect("all are there").expect("welcome").member_id;
    desk.sync(&first, 2, &[]);
    let left = desk.groups.leave("g", &first, None, desk.now_ms, &mut desk.effects);
    assert_eq!(left, Ok(()));
    assert_eq!(desk.heartbeat(&second, 2), Err(Refused::RebalanceInProgress));
    let again = desk.join(join(&second));
    let led = desk.joined(again).expect("alone").expect("welcome");
    assert_eq!((led.generation, led.leader), (3, second.clone()));
    let gone = desk.groups.leave("g", "nobody", None, desk.now_ms, &mut desk.effects);
    assert_eq!(gone, Err(Refused::UnknownMemberId));
    desk.groups.leave("g", &second, None, desk.now_ms, &mut desk.effects).expect("a member");
    assert_eq!(desk.state(), State::Empty);
    assert!(desk.effects.contains(&Effect::Changed("g".into())));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut desk = Desk::new(0);
    let fixed = || Join { instance_id: Some("i".into()), ..join("") };
    let token = desk.join(fixed());
    let old = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&old, Some("i"), 1, &[(&old, "mine")]);
    let token = desk.join(fixed());
    let back = desk.joined(token).expect("at once").expect("welcome");
    assert_eq!((back.generation, back.skip_assignment), (1, true));
    assert_ne!(back.member_id, old);
    assert_eq!(desk.state(), State::Stable);
    let token = desk.sync_as(&back.member_id, Some("i"), 1, &[]);
    assert_eq!(desk.synced(token), Some(Ok(b"mine".to_vec())));
    let fenced = desk.groups.heartbeat("g", &old, Some("i"), 1, desk.now_ms);
    assert_eq!(fenced, Err(Refused::FencedInstanceId));
}

impl Desk {
    fn sync_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        assigns: &[(&str, &str)],
    ) -> Token {
        self.next_token += 1;
        let assignments = assigns
            .iter()
            .map(|(member, what)| ((*member).to_owned(), what.as_bytes().to_vec()))
            .collect();
        let sync = Sync {
            member_id: member.into(),
            instance_id: instance.map(Into::into),
            generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let step = self.groups.sync("g", sync, self.next_token, self.now_ms, &mut self.effects);
        if let SyncStep::Store { assignments, generation } = step {
            let effects = &mut self.effects;
            self.groups.stored("g", generation, &assignments, true, self.now_ms, effects);
        }
        self.next_token
    }
}

#[test]
fn protocols_are_voted_and_must_fit() {
    let mut desk = Desk::new(1000);
    let with = |names: &[&str]| Join {
        protocols: names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect(),
        ..join("")
    };
    let tokens = [
        desk.join(with(&["a", "b"])),
        desk.join(with(&["b", "a"])),
        desk.join(with(&["b", "c", "a"])),
    ];
    let misfit = desk.join(with(&["d"]));
    assert_eq!(
        desk.joined(misfit).expect("at once").expect_err("no").0,
        Refused::InconsistentGroupProtocol
    );
    let other = desk.join(Join { protocol_type: "connect".into(), ..with(&["a"]) });
    assert_eq!(
        desk.joined(other).expect("at once").expect_err("no").0,
        Refused::InconsistentGroupProtocol
    );
    desk.pass(1000);
    desk.pass(1000);
    assert_eq!(desk.joined(tokens[0]).expect("in time").expect("welcome").protocol, "b");
}

#[test]
fn bounds_are_kept() {
    let config = Config { members_max: 1, groups_max: 1, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    desk.stable();
    let token = desk.join(join(""));
    assert_eq!(
        desk.joined(token).expect("at once").expect_err("no").0,
        Refused::GroupMaxSizeReached
    );
    let token = desk.join(Join { group: "h".into(), ..join("") });
    assert_eq!(
        desk.joined(token).expect("at once").expect_err("no").0,
        Refused::CoordinatorNotAvailable
    );
    let token = desk.join(Join { group: String::new(), ..join("") });
    assert_eq!(desk.joined(token).expect("at once").expect_err("no").0, Refused::InvalidGroupId);
    for session_ms in [5_999, 1_800_001] {
        let token = desk.join(Join { session_ms, ..join("") });
        let refused = desk.joined(token).expect("at once").expect_err("no").0;
        assert_eq!(refused, Refused::InvalidSessionTimeout);
    }
}

fn committed(offset: i64, at: i64) -> Committed {
    Committed { offset, leader_epoch: -1, metadata: String::new(), committed_ms: at }
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut desk = Desk::new(0);
    let member = desk.stable();
    let commit =
        |member_id, generation| Commit { group: "g", member_id, instance_id: None, generation };
    let now_ms = desk.now_ms;
    assert_eq!(desk.groups.may_commit(&commit(&member, 1), now_ms), Ok(()));
    assert_eq!(
        desk.groups.may_commit(&commit(&member, 0), now_ms),
        Err(Refused::IllegalGeneration)
    );
    assert_eq!(desk.groups.may_commit(&commit("", -1), now_ms), Err(Refused::UnknownMemberId));
    let alone = Commit { group: "alone", member_id: "", instance_id: None, generation: -1 };
    assert_eq!(desk.groups.may_commit(&alone, now_ms), Ok(()));
    let nowhere = Commit { group: "nowhere", member_id: "m", instance_id: None, generation: 3 };
    assert_eq!(desk.groups.may_commit(&nowhere, now_ms), Err(Refused::IllegalGeneration));
    assert_eq!(desk.groups.may_delete("g"), Err(Refused::NonEmptyGroup));
    assert_eq!(desk.groups.may_delete("nowhere"), Err(Refused::GroupIdNotFound));
}

#[test]
fn offsets_of_a_group_without_members_get_too_old() {
    let mut desk = Desk::new(0);
    let retention = Config::default().offsets_retention_ms;
    desk.groups.committed("g", ("t".into(), 0), committed(5, desk.now_ms));
    desk.pass(retention - 1);
    assert!(desk.effects.is_empty());
    desk.pass(1);
    let gone = Effect::OffsetExpired("g".into(), ("t".into(), 0));
    assert_eq!(desk.effects, [gone, Effect::GroupExpired("g".into())]);
    // A group with members keeps them.
    let config = Config { offsets_retention_ms: 20_000, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    let member = desk.stable();
    desk.groups.committed("g", ("t".into(), 0), committed(5, desk.now_ms));
    for _ in 0..100 {
        desk.pass(1000);
        assert_eq!(desk.heartbeat(&member, 1), Ok(()));
    }
    assert!(desk.effects.is_empty());
    desk.pass(30_000);
    assert_eq!(desk.effects, [Effect::Changed("g".into())]);
    desk.pass(20_000);
    assert!(desk.effects.contains(&Effect::GroupExpired("g".into())));
}

#[test]
fn offsets_of_topics_that_are_consumed_stay() {
    let mut desk = Desk::new(0);
    let metadata = [&[0, 1][..], &1_i32.to_be_bytes(), &[0, 1], b"t"].concat();
    let token = desk.join(Join { protocols: vec![("range".into(), metadata)], ..join("") });
    let member = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync(&member, 1, &[]);
    assert_eq!(desk.groups.may_delete_offsets("g", "t"), Err(Refused::GroupSubscribedToTopic));
    assert_eq!(desk.groups.may_delete_offsets("g", "other"), Ok(()));
    assert_eq!(desk.groups.may_delete_offsets("h", "t"), Err(Refused::GroupIdNotFound));
}

#[test]
fn a_group_that_was_stored_goes_on() {
    let mut desk = Desk::new(0);
    let member = StoredMember {
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: SESSION_MS,
        rebalance_ms: REBALANCE_MS,
        metadata: b"meta".to_vec(),
        assignment: b"mine".to_vec(),
    };
    let snapshot = Snapshot {
        generation: 7,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        leader: "m".into(),
        members: vec![("m".into(), member)],
        stored_ms: 1,
    };
    desk.groups.load("g", snapshot, desk.now_ms);
    assert_eq!(desk.heartbeat("m", 7), Ok(()));
    let token = desk.sync("m", 7, &[]);
    assert_eq!(desk.synced(token), Some(Ok(b"mine".to_vec())));
    desk.pass(i64::from(SESSION_MS));
    assert_eq!(desk.state(), State::Empty);
}

/// Random members that behave as clients do, and some that vanish: every parked request is answered
/// once, and in a stable generation everybody has what the leader gave.
#[derive(Default)]
struct Shadow {
    parked: BTreeMap<Token, usize>,
    generation: BTreeMap<i32, BTreeMap<String, Vec<u8>>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_members_keep_the_rules(steps in prop::collection::vec((0_usize..5, 0_u8..10, 0_i64..9000), 1..150)) {
        let mut desk = Desk::new(500);
        let mut ids: [String; 5] = std::array::from_fn(|_| String::new());
        let mut generations = [0; 5];
        let mut shadow = Shadow::default();
        for (who, what, ms) in steps {
            match what {
                0..=3 => {
                    let token = desk.join(join(&ids[who]));
                    shadow.parked.insert(token, who);
                }
                4..=6 => {
                    let members = desk.groups.get("g").map(|group| group.members.clone()).unwrap_or_default();
                    let given: Vec<(String, String)> =
                        members.keys().map(|id| (id.clone(), format!("{id}@{}", generations[who]))).collect();
                    let given: Vec<(&str, &str)> = given.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                    let token = desk.sync(&ids[who], generations[who], &given);
                    shadow.parked.insert(token, who);
                }
                7 => {
                    let _ = desk.groups.leave("g", &ids[who], None, desk.now_ms, &mut desk.effects);
                    ids[who].clear();
                }
                8 => { let id = ids[who].clone(); let _ = desk.heartbeat(&id, generations[who]); }
                _ => desk.pass(ms),
            }
            for effect in std::mem::take(&mut desk.effects) {
                match effect {
                    Effect::Joined(token, answer) => {
                        let who = shadow.parked.remove(&token).expect("parked, and answered once");
                        match answer {
                            Ok(joined) => {
                                generations[who] = joined.generation;
                                ids[who] = joined.member_id;
                            }
                            Err((Refused::UnknownMemberId, _)) => ids[who].clear(),
                            Err(_) => {}
                        }
                    }
                    Effect::Synced(token, answer) => {
                        shadow.parked.remove(&token).expect("parked, and answered once");
                        if let Ok(assigned) = answer {
                            let group = desk.groups.get("g").expect("it answered");
                            let text = String::from_utf8(assigned.assignment).expect("text");
                            let end = format!("@{}", group.generation);
                            prop_assert!(text.is_empty() || text.ends_with(&end), "an old assignment");
                        }
                    }
                    _ => {}
                }
            }
            if let Some(group) = desk.groups.get("g") {
                let known = shadow.generation.keys().next_back().copied().unwrap_or(0);
                prop_assert!(group.generation >= known);
                if group.state == State::Stable {
                    let now: BTreeMap<String, Vec<u8>> =
                        group.members.iter().map(|(id, one)| (id.clone(), one.assignment.clone())).collect();
                    let then = shadow.generation.entry(group.generation).or_insert_with(|| now.clone());
                    prop_assert_eq!(&*then, &now, "one assignment a generation");
                }
                prop_assert_eq!(group.state == State::Empty, group.members.is_empty() || group.generation == 0 && group.state == State::Empty);
            }
        }
        // Given time, nobody waits for ever.
        for _ in 0..20 {
            desk.pass(i64::from(REBALANCE_MS));
        }
        for effect in &desk.effects {
            if let Effect::Joined(token, _) | Effect::Synced(token, _) = effect {
                shadow.parked.remove(token);
            }
        }
        prop_assert!(shadow.parked.is_empty(), "{:?}", shadow.parked);
    }
}
