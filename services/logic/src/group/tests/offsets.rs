//! Commits, and what gets too old.

use super::expiry::STEP;
use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What is due is seen within this.
const CHECK_MS: i64 = 600_000;

fn committed(offset: i64, at: i64) -> Committed {
    Committed { offset, leader_epoch: -1, metadata: String::new(), committed_ms: at }
}

fn place(index: i32) -> TopicPartition {
    ("t".into(), index)
}

fn alone(group: &str) -> Commit<'_> {
    Commit { group, member_id: "", instance_id: None, generation: -1 }
}

/// ConsumerProtocolSubscription of one topic.
fn subscription(topic: &str) -> Vec<u8> {
    let len = u16::try_from(topic.len()).expect("short");
    [&[0, 1][..], &1_i32.to_be_bytes(), &len.to_be_bytes(), topic.as_bytes()].concat()
}

impl Desk {
    fn commit(&mut self, index: i32) {
        self.groups.committed("g", place(index), committed(5, self.now_ms), self.now_ms);
    }

    /// Does what effects ask for, and says what it was.
    fn obey(&mut self) -> (usize, usize) {
        let (mut offsets, mut gone) = (0, 0);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                // It is asked for again until it is done.
                Effect::OffsetExpired(group, place)
                    if self.groups.expires(&group, &place, self.now_ms) =>
                {
                    self.groups.deleted(&group, &place);
                    offsets += 1;
                }
                Effect::GroupExpired(group) => {
                    assert!(self.groups.is_unused(&group));
                    self.groups.remove(&group);
                    gone += 1;
                }
                _ => {}
            }
        }
        (offsets, gone)
    }

    /// Members that send heartbeats, for some time.
    fn live(&mut self, member: &str, generation: i32, ms: i64) {
        for _ in 0..ms / 5000 {
            self.pass(5000);
            assert_eq!(self.heartbeat(member, generation), Ok(()));
        }
    }
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut desk = Desk::new(0);
    let member = desk.stable();
    let commit =
        |member_id, generation| Commit { group: "g", member_id, instance_id: None, generation };
    let now_ms = desk.now_ms;
    let mut may = |commit: &Commit<'_>| desk.groups.may_commit(commit, now_ms);
    assert_eq!(may(&commit(&member, 1)), Ok(()));
    assert_eq!(may(&commit(&member, 0)), Err(Refused::IllegalGeneration));
    assert_eq!(may(&commit("", -1)), Err(Refused::UnknownMemberId));
    assert_eq!(may(&commit("nobody", 1)), Err(Refused::UnknownMemberId));
    assert_eq!(may(&alone("alone")), Ok(()));
    let nowhere = Commit { group: "nowhere", ..commit("m", 3) };
    assert_eq!(may(&nowhere), Err(Refused::IllegalGeneration));
    assert_eq!(desk.groups.may_delete("g"), Err(Refused::NonEmptyGroup));
    assert_eq!(desk.groups.may_delete("nowhere"), Err(Refused::GroupIdNotFound));
}

#[test]
fn commits_in_a_rebalance_wait_for_the_assignment_only() {
    let mut desk = Desk::new(0);
    let member = desk.stable();
    let waits = desk.join(join(""));
    let of = |generation| Commit { group: "g", member_id: &member, instance_id: None, generation };
    assert_eq!(desk.state(), State::PreparingRebalance);
    assert_eq!(desk.groups.may_commit(&of(1), desk.now_ms), Ok(()));
    desk.join(join(&member));
    assert!(desk.joined(waits).is_some());
    assert_eq!(desk.state(), State::CompletingRebalance);
    assert_eq!(desk.groups.may_commit(&of(1), desk.now_ms), Err(Refused::IllegalGeneration));
    assert_eq!(desk.groups.may_commit(&of(2), desk.now_ms), Err(Refused::RebalanceInProgress));
}

#[test]
fn there_are_no_more_groups_than_there_may_be() {
    let config = Config { groups_max: 1, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    desk.commit(0);
    assert_eq!(desk.groups.may_commit(&alone("g"), 0), Ok(()));
    assert_eq!(desk.groups.may_commit(&alone("h"), 0), Err(Refused::CoordinatorNotAvailable));
    assert_eq!(desk.groups.check_metadata(&"x".repeat(4096)), Ok(()));
    assert_eq!(desk.groups.check_metadata(&"x".repeat(4097)), Err(Refused::OffsetMetadataTooLarge));
}

#[test]
fn offsets_of_consumers_that_assign_themselves_get_too_old_by_their_commit() {
    let mut desk = Desk::new(0);
    desk.commit(0);
    desk.pass(DAY_MS);
    desk.commit(1);
    desk.pass(6 * DAY_MS - 1);
    assert_eq!(desk.obey(), (0, 0));
    desk.pass(CHECK_MS);
    assert_eq!(desk.obey(), (1, 0));
    desk.pass(DAY_MS);
    assert_eq!(desk.obey(), (1, 0));
    assert!(desk.groups.get("g").is_none(), "it was never stored, so there is nothing to delete");
    assert_eq!(desk.groups.deadlines.len(), 0);
}

#[test]
fn offsets_of_a_group_get_too_old_after_its_last_member_left() {
    let config = Config { offsets_retention_ms: DAY_MS, initial_delay_ms: 0, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    let member = desk.stable();
    desk.commit(0);
    desk.live(&member, 1, 2 * DAY_MS);
    assert_eq!(desk.obey(), (0, 0));
    assert_eq!(desk.leave(&member), Ok(()));
    desk.pass(DAY_MS - 1);
    assert_eq!(desk.obey(), (0, 0));
    desk.pass(CHECK_MS);
    assert_eq!(desk.obey(), (1, 0));
    desk.pass(CHECK_MS);
    assert_eq!(desk.obey(), (0, 1));
    assert!(desk.groups.get("g").is_none());
    assert_eq!(desk.groups.deadlines.len(), 0);
}

#[test]
fn a_group_that_commits_nothing_goes_when_it_is_looked_at() {
    let mut desk = Desk::new(0);
    let member = desk.stable();
    assert_eq!(desk.leave(&member), Ok(()));
    desk.pass(CHECK_MS - 1);
    assert_eq!(desk.obey(), (0, 0));
    desk.pass(1);
    let asked = desk.effects.clone();
    assert_eq!(asked, [Effect::GroupExpired("g".into())]);
    // It could not be stored.
    desk.effects.clear();
    desk.pass(CHECK_MS);
    assert_eq!(desk.obey(), (0, 1));
    // One that was about to go and is joined stays.
    let member = desk.stable();
    assert_eq!(desk.leave(&member), Ok(()));
    desk.pass(CHECK_MS);
    let token = desk.join(join(""));
    assert!(desk.joined(token).expect("at once").is_ok());
    assert!(!desk.groups.is_unused("g"));
}

#[test]
fn what_a_stable_group_does_not_consume_gets_too_old() {
    let config = Config { offsets_retention_ms: DAY_MS, initial_delay_ms: 0, ..Config::default() };
    for (metadata, kind, gone) in [
        (subscription("t"), "consumer", 0),
        (subscription("other"), "consumer", 1),
        (b"?".to_vec(), "consumer", 0),
        (subscription("other"), "connect", 0),
    ] {
        let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
        let protocols = vec![("range".into(), metadata)];
        let token = desk.join(Join { protocols, protocol_type: kind.into(), ..join("") });
        let member = desk.joined(token).expect("at once").expect("welcome").member_id;
        desk.sync(&member, 1, &[]);
        desk.effects.clear();
        desk.commit(0);
        desk.live(&member, 1, DAY_MS + CHECK_MS);
        assert_eq!(desk.obey(), (gone, 0), "{kind}");
    }
}

#[test]
fn what_is_being_committed_does_not_get_too_old() {
    let mut desk = Desk::new(0);
    desk.commit(0);
    desk.pass(7 * DAY_MS - 1);
    desk.groups.stage("g", place(0), desk.now_ms);
    desk.pass(CHECK_MS);
    desk.pass(CHECK_MS);
    assert_eq!(desk.effects, []);
    desk.groups.unstage("g", &place(0));
    desk.pass(CHECK_MS);
    let expired = Effect::OffsetExpired("g".into(), place(0));
    assert_eq!(desk.effects, [expired]);
    // It was found too old, and then committed, before that was stored.
    desk.groups.stage("g", place(0), desk.now_ms);
    assert!(!desk.groups.expires("g", &place(0), desk.now_ms));
    desk.commit(0);
    assert!(!desk.groups.expires("g", &place(0), desk.now_ms));
    assert!(desk.groups.expires("g", &place(0), desk.now_ms + 7 * DAY_MS));
}

#[test]
fn a_long_list_is_looked_at_in_steps() {
    let mut desk = Desk::new(0);
    let count = 3 * STEP + 1;
    for index in 0..count {
        desk.commit(i32::try_from(index).expect("few"));
    }
    desk.now_ms += 7 * DAY_MS;
    assert!(!desk.groups.tick(desk.now_ms, 1, &mut desk.effects));
    assert_eq!(desk.effects.len(), STEP);
    while !desk.groups.tick(desk.now_ms, 1, &mut desk.effects) {}
    assert_eq!(desk.obey(), (count, 0));
    assert!(desk.groups.get("g").is_none());
}

#[test]
fn an_old_commit_in_the_log_is_replaced_by_the_next() {
    let mut desk = Desk::new(0);
    desk.now_ms = 100 * DAY_MS;
    desk.groups.committed("g", place(0), committed(5, DAY_MS), desk.now_ms);
    desk.pass(1);
    assert_eq!(desk.effects, [], "there may be more to come");
    desk.groups.committed("g", place(0), committed(6, desk.now_ms), desk.now_ms);
    desk.pass(DAY_MS);
    assert_eq!(desk.obey(), (0, 0));
}

#[test]
fn offsets_of_topics_that_are_consumed_stay() {
    let mut desk = Desk::new(0);
    let protocols = vec![("range".into(), subscription("t"))];
    let token = desk.join(Join { protocols, ..join("") });
    let member = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync(&member, 1, &[]);
    assert_eq!(desk.groups.may_delete_offsets("g", "t"), Err(Refused::GroupSubscribedToTopic));
    assert_eq!(desk.groups.may_delete_offsets("g", "other"), Ok(()));
    assert_eq!(desk.groups.may_delete_offsets("h", "t"), Err(Refused::GroupIdNotFound));
}

#[test]
fn a_group_that_is_deleted_takes_along_what_is_being_committed() {
    let mut desk = Desk::new(0);
    desk.commit(0);
    desk.groups.stage("g", place(1), desk.now_ms);
    assert_eq!(desk.groups.may_delete("g"), Ok(vec![place(0), place(1)]));
    desk.commit(1);
    desk.groups.remove("g");
    assert!(desk.groups.get("g").is_none());
    // If somebody joined before that was stored, the offsets are gone, and the member is not.
    desk.commit(0);
    let member = desk.stable();
    desk.groups.remove("g");
    assert!(desk.has(&member));
    assert!(desk.groups.get("g").expect("joined").offsets.is_empty());
}

#[test]
fn what_is_no_subscription_is_none_wherever_it_ends() {
    let whole = [&[0, 1][..], &2_i32.to_be_bytes(), &[0, 1], b"a", &[0, 2], b"bc"].concat();
    assert_eq!(super::super::offsets::topics_of(&whole), Some(vec!["a", "bc"]));
    for cut in 0..whole.len() {
        assert_eq!(super::super::offsets::topics_of(&whole[..cut]), None, "cut at {cut}");
    }
    // A count that is only claimed allocates nothing.
    let claimed = [&[0, 1][..], &i32::MAX.to_be_bytes()].concat();
    assert_eq!(super::super::offsets::topics_of(&claimed), None);
}
