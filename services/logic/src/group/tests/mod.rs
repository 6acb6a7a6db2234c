//! Scripts for each rule of membership; in `instances` those of static members, in `offsets` those of commits, in
//! `random` a driver with a shadow of what must hold.

mod instances;
mod offsets;
mod random;

use std::collections::BTreeMap;

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
        can_skip_assignment: false,
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
        self.sync_as(member, None, generation, assigns)
    }

    fn sync_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        assigns: &[(&str, &str)],
    ) -> Token {
        let (token, step) = self.begin_sync(member, instance, generation, assigns);
        if let SyncStep::Store { assignments, generation } = step {
            self.stored(generation, &assignments, true);
        }
        token
    }

    /// A sync whose assignments, if any, are not stored yet.
    fn begin_sync(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        assigns: &[(&str, &str)],
    ) -> (Token, SyncStep) {
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
        (self.next_token, step)
    }

    fn stored(&mut self, generation: i32, assignments: &BTreeMap<String, Vec<u8>>, ok: bool) {
        self.groups.stored("g", generation, assignments, ok, self.now_ms, &mut self.effects);
    }

    /// Says that the group with a static member's new id was stored, or not.
    fn replaced(&mut self, ok: bool) {
        let at = self.effects.iter().position(|one| matches!(one, Effect::Replaced(..)));
        let Effect::Replaced(group, replaced) = self.effects.remove(at.expect("to be stored"))
        else {
            unreachable!("it was looked for");
        };
        self.groups.replaced(&group, replaced, ok, self.now_ms, &mut self.effects);
    }

    fn leave(&mut self, member: &str) -> Result<(), Refused> {
        self.groups.leave("g", member, None, self.now_ms, &mut self.effects)
    }

    fn has(&self, member: &str) -> bool {
        self.groups.get("g").is_some_and(|group| group.members.contains_key(member))
    }

    /// Two members in generation 2 that have not synced: the leader, and the other.
    fn pair(&mut self) -> (String, String) {
        let first = self.stable();
        let token = self.join(join(""));
        self.join(join(&first));
        let second = self.joined(token).expect("all are there").expect("welcome").member_id;
        self.effects.clear();
        (first, second)
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
    let (one, two) = desk.pair();
    let waits = desk.sync(&two, 2, &[]);
    for _ in 0..4 {
        desk.pass(7000);
        let _ = desk.heartbeat(&one, 2);
    }
    desk.pass(1999);
    assert!(desk.has(&one));
    desk.pass(1);
    assert_eq!(desk.synced(waits), Some(Err(Refused::RebalanceInProgress)));
    assert!(!desk.has(&one) && desk.has(&two));
}

#[test]
fn who_does_not_sync_is_out_even_if_the_others_have_their_assignments() {
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    desk.sync(&one, 2, &[(&one, "a"), (&two, "b")]);
    assert_eq!(desk.state(), State::Stable);
    for _ in 0..9 {
        desk.pass(3000);
        assert_eq!((desk.heartbeat(&one, 2), desk.heartbeat(&two, 2)), (Ok(()), Ok(())));
    }
    desk.pass(3000);
    assert!(desk.has(&one) && !desk.has(&two));
    assert_eq!(desk.state(), State::PreparingRebalance);
}

#[test]
fn a_session_begins_anew_with_the_assignment() {
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    let waits = desk.sync(&two, 2, &[]);
    desk.pass(i64::from(SESSION_MS) - 1);
    desk.sync(&one, 2, &[(&two, "b")]);
    assert_eq!(desk.synced(waits), Some(Ok(b"b".to_vec())));
    desk.pass(i64::from(SESSION_MS) - 1);
    assert!(desk.has(&two));
    desk.pass(1);
    assert!(!desk.has(&two));
}

#[test]
fn a_parked_request_holds_its_session() {
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    let waits = desk.sync(&two, 2, &[]);
    for _ in 0..5 {
        desk.pass(5000);
        assert_eq!(desk.heartbeat(&one, 2), Ok(()));
    }
    assert!(desk.has(&two));
    assert_eq!(desk.synced(waits), None);
}

#[test]
fn a_new_member_waits_for_five_minutes_at_most() {
    let mut desk = Desk::new(0);
    let slow = Join { rebalance_ms: 3_600_000, ..join("") };
    let token = desk.join(slow);
    let first = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync(&first, 1, &[]);
    let waits = desk.join(join(""));
    for _ in 0..60 {
        assert_eq!(desk.joined(waits), None);
        desk.pass(5000);
        assert_eq!(desk.heartbeat(&first, 1), Err(Refused::RebalanceInProgress));
    }
    assert_eq!(desk.joined(waits), Some(Err((Refused::UnknownMemberId, String::new()))));
    assert!(desk.has(&first));
}

#[test]
fn an_assignment_that_is_not_stored_is_told_to_nobody() {
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    let waits = desk.sync(&two, 2, &[]);
    let (gives, step) = desk.begin_sync(&one, None, 2, &[(&one, "a"), (&two, "b")]);
    let SyncStep::Store { assignments, generation } = step else { unreachable!("it leads") };
    assert_eq!((desk.synced(waits), desk.synced(gives)), (None, None), "not stored yet");
    desk.stored(generation, &assignments, false);
    let refused = Some(Err(Refused::CoordinatorNotAvailable));
    assert_eq!((desk.synced(waits), desk.synced(gives)), (refused.clone(), refused));
    assert_eq!(desk.state(), State::PreparingRebalance);
    // What was assigned before is void by then.
    assert!(desk.groups.get("g").expect("a group").members[&one].assignment.is_empty());
    // One that is overtaken by a rebalance counts for nothing.
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    let (gives, step) = desk.begin_sync(&one, None, 2, &[(&one, "a"), (&two, "b")]);
    let SyncStep::Store { assignments, generation } = step else { unreachable!("it leads") };
    assert_eq!(desk.leave(&two), Ok(()));
    assert_eq!(desk.synced(gives), Some(Err(Refused::RebalanceInProgress)));
    desk.stored(generation, &assignments, true);
    assert_eq!(desk.state(), State::PreparingRebalance);
}

#[test]
fn a_leader_that_joins_again_wants_a_rebalance_and_a_follower_its_answer() {
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    // Both ask again for an answer they may have lost.
    for (id, members) in [(&one, 2), (&two, 0)] {
        let token = desk.join(join(id));
        let joined = desk.joined(token).expect("at once").expect("welcome");
        assert_eq!((joined.generation, joined.members.len()), (2, members));
    }
    desk.sync(&one, 2, &[]);
    let token = desk.join(join(&two));
    assert_eq!(desk.joined(token).expect("at once").expect("welcome").generation, 2);
    assert_eq!(desk.state(), State::Stable);
    let token = desk.join(join(&one));
    assert_eq!(desk.joined(token), None);
    assert_eq!(desk.state(), State::PreparingRebalance);
    // Other metadata of a follower begins one too.
    let mut desk = Desk::new(0);
    let (one, two) = desk.pair();
    desk.sync(&one, 2, &[]);
    desk.join(Join { protocols: vec![("range".into(), b"other".to_vec())], ..join(&two) });
    assert_eq!(desk.state(), State::PreparingRebalance);
}

#[test]
fn a_member_that_leaves_makes_the_others_join_again() {
    let mut desk = Desk::new(0);
    let first = desk.stable();
    let token = desk.join(join(""));
    desk.join(join(&first));
    let second = desk.joined(token).expect("all are there").expect("welcome").member_id;
    desk.sync(&first, 2, &[]);
    assert_eq!(desk.leave(&first), Ok(()));
    assert_eq!(desk.heartbeat(&second, 2), Err(Refused::RebalanceInProgress));
    let again = desk.join(join(&second));
    let led = desk.joined(again).expect("alone").expect("welcome");
    assert_eq!((led.generation, led.leader), (3, second.clone()));
    assert_eq!(desk.leave("nobody"), Err(Refused::UnknownMemberId));
    assert_eq!(desk.leave(&second), Ok(()));
    assert_eq!(desk.state(), State::Empty);
    assert!(desk.effects.contains(&Effect::Changed("g".into())));
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
    let config = Config { members_max: 1, groups_max: 1, initial_delay_ms: 0, ..Config::default() };
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

#[test]
fn a_full_group_takes_as_many_as_have_joined_again() {
    let config = Config { members_max: 2, initial_delay_ms: 0, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    let (one, two) = desk.pair();
    let token = desk.join(join(""));
    let full = Some(Err((Refused::GroupMaxSizeReached, String::new())));
    assert_eq!(desk.joined(token), full);
    // In a rebalance only those that have joined again count ...
    desk.sync(&one, 2, &[]);
    let parked = desk.join(join(&one));
    let third = desk.join(join(""));
    assert_eq!((desk.joined(parked), desk.joined(third)), (None, None));
    // ... and the last one is out.
    let last = desk.join(join(&two));
    assert_eq!(desk.joined(last), full);
    assert!(!desk.has(&two));
    assert!(desk.joined(parked).is_some() && desk.joined(third).is_some());
    // Ids that are given out are bounded too.
    let config = Config { members_max: 2, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    for refused in
        [Refused::MemberIdRequired, Refused::MemberIdRequired, Refused::GroupMaxSizeReached]
    {
        let token = desk.join(Join { requires_known_id: true, ..join("") });
        assert_eq!(desk.joined(token).expect("at once").expect_err("no").0, refused);
    }
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let mut desk = Desk::new(0);
    for n in 0..3 {
        let group = |kind: &str| format!("{kind}{n}");
        desk.join(Join { group: group("misfit"), protocols: Vec::new(), ..join("") });
        desk.join(Join { group: group("unused"), requires_known_id: true, ..join("") });
        let token = desk.join(Join { group: group("left"), requires_known_id: true, ..join("") });
        let (_, id) = desk.joined(token).expect("at once").expect_err("an id");
        let left = desk.groups.leave(&group("left"), &id, None, desk.now_ms, &mut desk.effects);
        assert_eq!(left, Ok(()));
        let alone = group("alone");
        let commit = Commit { group: &alone, member_id: "", instance_id: None, generation: -1 };
        assert_eq!(desk.groups.may_commit(&commit, desk.now_ms), Ok(()));
        desk.groups.stage(&alone, ("t".into(), 0), desk.now_ms);
        desk.groups.unstage(&alone, &("t".into(), 0));
    }
    assert_eq!(desk.groups.iter().count(), 3, "those whose id may be used");
    desk.pass(i64::from(SESSION_MS));
    assert_eq!(desk.groups.iter().count(), 0);
    assert_eq!(desk.groups.deadlines.len(), 0);
}

#[test]
fn timers_are_bounded_by_members_however_often_they_come_and_go() {
    let mut desk = Desk::new(0);
    for _ in 0..100 {
        let long = Join { rebalance_ms: i32::MAX, requires_known_id: true, ..join("") };
        let token = desk.join(long.clone());
        let (_, member_id) = desk.joined(token).expect("at once").expect_err("an id");
        let token = desk.join(Join { member_id, ..long });
        let id = desk.joined(token).expect("at once").expect("welcome").member_id;
        assert_eq!(desk.leave(&id), Ok(()));
    }
    // One that looks after the group's offsets.
    assert_eq!(desk.groups.deadlines.len(), 1);
}

#[test]
fn a_group_needs_a_name_except_for_commits() {
    let mut desk = Desk::new(0);
    let invalid = Err(Refused::InvalidGroupId);
    let (now_ms, effects) = (desk.now_ms, &mut desk.effects);
    assert_eq!(desk.groups.heartbeat("", "m", None, 1, now_ms), invalid);
    assert_eq!(desk.groups.leave("", "m", None, now_ms, effects), invalid);
    let alone = Commit { group: "", member_id: "", instance_id: None, generation: -1 };
    assert_eq!(desk.groups.may_commit(&alone, now_ms), Ok(()));
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

#[test]
fn what_was_stored_later_counts() {
    let stored = |id: &str| StoredMember {
        instance_id: Some("i".into()),
        client_id: id.into(),
        client_host: String::new(),
        session_ms: SESSION_MS,
        rebalance_ms: REBALANCE_MS,
        metadata: Vec::new(),
        assignment: Vec::new(),
    };
    let snapshot = |generation, ids: &[&str]| Snapshot {
        generation,
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        leader: ids.first().map_or_else(String::new, |id| (*id).to_owned()),
        members: ids.iter().map(|id| ((*id).to_owned(), stored(id))).collect(),
        stored_ms: 1,
    };
    let config = Config { groups_max: 0, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    desk.groups.load("g", snapshot(1, &["a"]), desk.now_ms);
    desk.groups.load("g", snapshot(2, &["b", "b"]), desk.now_ms);
    assert!(desk.has("b") && !desk.has("a"));
    let group = desk.groups.get("g").expect("loaded although there is room for none");
    group.check_counts();
    assert_eq!((group.generation, group.leader.as_str()), (2, "b"));
    assert_eq!(desk.groups.deadlines.len(), 2, "a session, and the offsets");
    desk.groups.unload("g");
    assert!(desk.groups.get("g").is_none());
    assert_eq!(desk.groups.deadlines.len(), 0);
}
