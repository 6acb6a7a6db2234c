//! Static members.

use super::*;

fn fixed(instance: &str) -> Join {
    Join { instance_id: Some(instance.into()), can_skip_assignment: true, ..join("") }
}

/// A stable group of one static member, and its id.
fn alone() -> (Desk, String) {
    let mut desk = Desk::new(0);
    let token = desk.join(fixed("i"));
    let id = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&id, Some("i"), 1, &[(&id, "mine")]);
    desk.effects.clear();
    (desk, id)
}

#[test]
fn one_that_comes_back_takes_its_place_over_without_a_rebalance() {
    let (mut desk, old) = alone();
    let token = desk.join(fixed("i"));
    assert_eq!(desk.joined(token), None, "the new id is not stored yet");
    desk.replaced(true);
    let back = desk.joined(token).expect("stored").expect("welcome");
    assert_eq!((back.generation, back.skip_assignment, back.members.len()), (1, true, 1));
    assert_eq!(back.leader, back.member_id);
    assert_ne!(back.member_id, old);
    assert_eq!(desk.state(), State::Stable);
    let token = desk.sync_as(&back.member_id, Some("i"), 1, &[]);
    assert_eq!(desk.synced(token), Some(Ok(b"mine".to_vec())));
    let fenced = desk.groups.heartbeat("g", &old, Some("i"), 1, desk.now_ms);
    assert_eq!(fenced, Err(Refused::FencedInstanceId));
    let unknown = desk.groups.heartbeat("g", &old, None, 1, desk.now_ms);
    assert_eq!(unknown, Err(Refused::UnknownMemberId));
}

#[test]
fn one_that_cannot_skip_its_assignment_is_not_told_that_it_leads() {
    let (mut desk, old) = alone();
    let token = desk.join(Join { can_skip_assignment: false, ..fixed("i") });
    desk.replaced(true);
    let back = desk.joined(token).expect("stored").expect("welcome");
    assert_eq!((back.leader, back.skip_assignment, back.members), (old, false, Vec::new()));
    assert_eq!(desk.groups.get("g").expect("a group").leader, back.member_id);
}

#[test]
fn an_id_that_is_not_stored_is_told_to_nobody() {
    let (mut desk, _) = alone();
    let token = desk.join(fixed("i"));
    desk.replaced(false);
    let refused = Err((Refused::CoordinatorNotAvailable, String::new()));
    assert_eq!(desk.joined(token), Some(refused));
    let token = desk.join(fixed("i"));
    desk.replaced(true);
    assert!(desk.joined(token).expect("stored").is_ok());
}

#[test]
fn a_rebalance_overtakes_a_return_and_answers_it() {
    let (mut desk, _) = alone();
    let back = desk.join(fixed("i"));
    let second = desk.join(join(""));
    let joined = desk.joined(back).expect("all are there").expect("welcome");
    assert!(desk.joined(second).is_some());
    assert_eq!((joined.generation, joined.skip_assignment), (2, false));
    desk.replaced(true);
    assert_eq!(desk.joined(back), None, "it was answered");
}

#[test]
fn a_return_in_a_rebalance_that_waits_for_others_waits_too() {
    let (mut desk, first) = alone();
    let other = desk.join(join(""));
    desk.join(Join { member_id: first, ..fixed("i") });
    let other = desk.joined(other).expect("all are there").expect("welcome");
    let leader = desk.groups.get("g").expect("a group").leader.clone();
    desk.sync_as(&leader, Some("i"), 2, &[]);
    desk.sync(&other.member_id, 2, &[]);
    let back = desk.join(fixed("i"));
    let group = desk.groups.get("g").expect("a group");
    assert!(group.leader != leader && group.leader != other.member_id, "it still leads");
    desk.join(join(""));
    desk.replaced(true);
    assert_eq!(desk.joined(back), None, "the other one is waited for");
    desk.join(join(&other.member_id));
    let joined = desk.joined(back).expect("all are there").expect("welcome");
    assert_eq!((joined.generation, joined.members.len()), (3, 3));
}

#[test]
fn a_second_return_before_the_first_is_stored_counts() {
    let (mut desk, _) = alone();
    let first = desk.join(fixed("i"));
    let second = desk.join(fixed("i"));
    let refused = desk.joined(first).expect("at once").expect_err("fenced").0;
    assert_eq!(refused, Refused::FencedInstanceId);
    desk.replaced(true);
    assert_eq!((desk.joined(first), desk.joined(second)), (None, None));
    desk.replaced(true);
    assert!(desk.joined(second).expect("stored").expect("welcome").skip_assignment);
}

#[test]
fn the_one_before_is_fenced_while_it_waits() {
    let mut desk = Desk::new(1000);
    let first = desk.join(fixed("i"));
    let second = desk.join(fixed("i"));
    let refused = desk.joined(first).expect("at once").expect_err("fenced").0;
    assert_eq!(refused, Refused::FencedInstanceId);
    desk.pass(1000);
    let joined = desk.joined(second).expect("in time").expect("welcome");
    assert_eq!(joined.members.len(), 1);
    // In a rebalance that waits for assignments there is another one.
    let waits = desk.sync_as(&joined.member_id, Some("i"), 1, &[]);
    assert!(desk.synced(waits).is_some());
    let other = desk.join(join(""));
    desk.join(Join { member_id: joined.member_id.clone(), ..fixed("i") });
    assert!(desk.joined(other).is_some());
    let waits = desk.begin_sync(&joined.member_id, Some("i"), 2, &[]).0;
    desk.join(fixed("i"));
    assert_eq!(desk.synced(waits), Some(Err(Refused::FencedInstanceId)));
    assert_eq!(desk.state(), State::PreparingRebalance);
}

#[test]
fn other_protocols_begin_a_rebalance() {
    let mut desk = Desk::new(0);
    let both = |names: [&str; 2]| Join {
        protocols: names.map(|name| (name.to_owned(), Vec::new())).to_vec(),
        ..fixed("i")
    };
    let token = desk.join(both(["a", "b"]));
    let id = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&id, Some("i"), 1, &[]);
    let token = desk.join(both(["b", "a"]));
    let joined = desk.joined(token).expect("alone").expect("welcome");
    assert_eq!((joined.generation, joined.protocol.as_str()), (2, "b"));
}

#[test]
fn one_that_is_away_keeps_its_place_for_its_session() {
    let mut desk = Desk::new(0);
    let long = Join { session_ms: 600_000, ..fixed("i") };
    let token = desk.join(long);
    let away = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&away, Some("i"), 1, &[]);
    let token = desk.join(join(""));
    desk.pass(i64::from(REBALANCE_MS));
    let led = desk.joined(token).expect("it is not waited for").expect("welcome");
    assert_eq!((led.leader.as_str(), led.members.len()), (led.member_id.as_str(), 2));
    assert!(desk.has(&away));
    // An operator takes it out by its instance.
    let (now_ms, effects) = (desk.now_ms, &mut desk.effects);
    let fenced = desk.groups.leave("g", "other", Some("i"), now_ms, effects);
    assert_eq!(fenced, Err(Refused::FencedInstanceId));
    assert_eq!(
        desk.groups.leave("g", "", Some("nobody"), now_ms, effects),
        Err(Refused::UnknownMemberId)
    );
    assert_eq!(desk.groups.leave("g", "", Some("i"), now_ms, effects), Ok(()));
    assert!(!desk.has(&away));
}

#[test]
fn a_rebalance_of_members_that_are_all_away_waits_for_their_sessions() {
    let mut desk = Desk::new(0);
    let token = desk.join(Join { session_ms: 100_000, ..fixed("i") });
    let away = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&away, Some("i"), 1, &[]);
    let token = desk.join(join(""));
    assert_eq!(desk.joined(token), None);
    let second = desk.groups.get("g").expect("a group").members.keys().find(|id| **id != away);
    let second = second.expect("the other").clone();
    assert_eq!(desk.leave(&second), Ok(()));
    for _ in 0..3 {
        desk.pass(30_000);
        assert_eq!(desk.state(), State::PreparingRebalance);
    }
    desk.pass(30_000);
    assert_eq!(desk.state(), State::Empty);
}

#[test]
fn one_that_comes_back_finds_its_place_in_a_full_group() {
    let config = Config { members_max: 1, initial_delay_ms: 0, ..Config::default() };
    let mut desk = Desk { groups: Groups::new(config), ..Desk::new(0) };
    let token = desk.join(fixed("i"));
    let id = desk.joined(token).expect("at once").expect("welcome").member_id;
    desk.sync_as(&id, Some("i"), 1, &[]);
    let token = desk.join(fixed("j"));
    let refused = desk.joined(token).expect("at once").expect_err("full").0;
    assert_eq!(refused, Refused::GroupMaxSizeReached);
    let token = desk.join(fixed("i"));
    desk.replaced(true);
    assert!(desk.joined(token).expect("stored").is_ok());
}
