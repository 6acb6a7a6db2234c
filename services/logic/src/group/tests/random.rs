//! Random members that behave as clients do, some that vanish, stores that take their time and fail, and a shadow of
//! what must hold.
//!
//! Every parked request is answered once and nothing else is; a generation follows the one before; in a stable one
//! everybody has what the leader gave, and nobody is told of what was not stored; what is counted is right; given
//! time, nothing is left.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 6;
/// Clients from here on are static.
const STATIC: usize = 4;

/// What goes to be stored.
enum Write {
    Assigned(i32, BTreeMap<String, Vec<u8>>),
    Replaced(Replaced),
}

struct Driver {
    desk: Desk,
    ids: [String; CLIENTS],
    generations: [i32; CLIENTS],
    parked: BTreeMap<Token, usize>,
    writes: VecDeque<Write>,
    /// What leaders gave and was stored, by generation.
    given: BTreeMap<i32, BTreeMap<String, Vec<u8>>>,
    /// Ids that were told, and may be heard.
    told: BTreeSet<String>,
    last: (State, i32),
}

fn instance(who: usize) -> Option<String> {
    (who >= STATIC).then(|| format!("i{who}"))
}

impl Driver {
    fn new() -> Self {
        let config = Config { initial_delay_ms: 500, members_max: 5, ..Config::default() };
        Self {
            desk: Desk { groups: Groups::new(config), ..Desk::new(0) },
            ids: std::array::from_fn(|_| String::new()),
            generations: [0; CLIENTS],
            parked: BTreeMap::new(),
            writes: VecDeque::new(),
            given: BTreeMap::new(),
            told: BTreeSet::new(),
            last: (State::Empty, 0),
        }
    }

    fn step(&mut self, who: usize, what: u8, ms: i64) {
        match what {
            0..=4 => {
                let asked = Join {
                    instance_id: instance(who),
                    requires_known_id: who.is_multiple_of(2),
                    can_skip_assignment: who == STATIC,
                    protocols: vec![("range".into(), vec![u8::from(ms > 8500)])],
                    ..join(&self.ids[who])
                };
                let token = self.desk.join(asked);
                self.parked.insert(token, who);
            }
            5..=8 => self.sync(who),
            9 => {
                let (now_ms, effects) = (self.desk.now_ms, &mut self.desk.effects);
                let (id, instance) = (&self.ids[who], instance(who));
                let _ = self.desk.groups.leave("g", id, instance.as_deref(), now_ms, effects);
                self.ids[who].clear();
            }
            // It was started anew, and knows nothing of what it asked before.
            10 => self.ids[who].clear(),
            11..=12 => {
                let now_ms = self.desk.now_ms;
                let (id, instance) = (&self.ids[who], instance(who));
                let generation = self.generations[who];
                let _ =
                    self.desk.groups.heartbeat("g", id, instance.as_deref(), generation, now_ms);
            }
            13..=15 => self.store(what != 13),
            _ => self.desk.pass(ms),
        }
    }

    fn sync(&mut self, who: usize) {
        let generation = self.generations[who];
        let group = self.desk.groups.get("g");
        let members = group.into_iter().flat_map(|group| group.members.keys());
        let given: Vec<(String, String)> =
            members.map(|id| (id.clone(), format!("{id}@{generation}"))).collect();
        let given: Vec<(&str, &str)> =
            given.iter().map(|(id, what)| (id.as_str(), what.as_str())).collect();
        let (id, instance) = (self.ids[who].clone(), instance(who));
        let (token, step) = self.desk.begin_sync(&id, instance.as_deref(), generation, &given);
        self.parked.insert(token, who);
        if let SyncStep::Store { assignments, generation } = step {
            self.writes.push_back(Write::Assigned(generation, assignments));
        }
    }

    /// The oldest of what goes to be stored is, or cannot be.
    fn store(&mut self, ok: bool) {
        let (now_ms, effects) = (self.desk.now_ms, &mut self.desk.effects);
        match self.writes.pop_front() {
            Some(Write::Assigned(generation, assignments)) => {
                if ok {
                    self.given.entry(generation).or_insert_with(|| assignments.clone());
                }
                self.desk.groups.stored("g", generation, &assignments, ok, now_ms, effects);
            }
            Some(Write::Replaced(replaced)) => {
                self.desk.groups.replaced("g", replaced, ok, now_ms, effects);
            }
            None => {}
        }
    }

    fn listen(&mut self) {
        for effect in std::mem::take(&mut self.desk.effects) {
            match effect {
                Effect::Joined(token, answer) => {
                    let who = self.parked.remove(&token).expect("parked, and answered once");
                    match answer {
                        Ok(joined) => {
                            self.generations[who] = joined.generation;
                            self.told.insert(joined.member_id.clone());
                            self.ids[who] = joined.member_id;
                        }
                        Err((Refused::MemberIdRequired, id)) => self.ids[who] = id,
                        Err((Refused::UnknownMemberId | Refused::FencedInstanceId, _)) => {
                            self.ids[who].clear();
                        }
                        Err(_) => {}
                    }
                }
                Effect::Synced(token, answer) => {
                    let who = self.parked.remove(&token).expect("parked, and answered once");
                    if let Ok(assigned) = answer {
                        let group = self.desk.groups.get("g").expect("it answered");
                        assert!(self.given.contains_key(&group.generation), "not stored");
                        let text = String::from_utf8(assigned.assignment).expect("text");
                        let end = format!("@{}", group.generation);
                        assert!(text.is_empty() || text.ends_with(&end), "{text} of {who}");
                    }
                }
                Effect::Replaced(_, replaced) => {
                    self.writes.push_back(Write::Replaced(replaced));
                }
                Effect::GroupExpired(group) => {
                    if self.desk.groups.is_unused(&group) {
                        self.desk.groups.remove(&group);
                        self.given.clear();
                        self.last = (State::Empty, 0);
                    }
                }
                Effect::Changed(_) | Effect::OffsetExpired(..) => {}
            }
        }
    }

    fn check(&mut self) {
        let Some(group) = self.desk.groups.get("g") else { return };
        group.check_counts();
        let (state, generation) = self.last;
        let grown = group.generation - generation;
        assert!(grown >= 0, "a generation does not come back");
        // One may end and the next begin within a step, but not without the members.
        assert!(grown <= 1 || group.state == State::Empty, "{state:?} {generation} {group:?}");
        self.last = (group.state, group.generation);
        // An id that was given out may hold a rebalance that nobody is left in.
        let may_have_nobody = matches!(group.state, State::Empty | State::PreparingRebalance);
        assert!(!group.members.is_empty() || may_have_nobody);
        assert!(group.members.is_empty() || group.state != State::Empty);
        if group.state == State::Stable {
            let given = &self.given[&group.generation];
            for member in group.members.values() {
                // A static member has what was given to it under its id before.
                let text = String::from_utf8(member.assignment.clone()).expect("text");
                let is_given = given.values().any(|one| *one == member.assignment);
                assert!(text.is_empty() || is_given, "{text} was not given");
            }
        }
        for (id, member) in &group.members {
            assert!(member.session_at_ms.is_some(), "nobody looks after {id}");
            if let Some(token) = member.joining.or(member.syncing) {
                assert!(self.parked.contains_key(&token), "{id} waits for nobody");
            }
        }
        let parked = group.members.values().flat_map(|one| [one.joining, one.syncing]).flatten();
        assert_eq!(parked.count(), self.parked.len(), "each parked request is some member's");
        let timers = self.desk.groups.deadlines.len();
        assert!(timers <= group.members.len() + group.pending.len() + 3, "{timers} timers");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_members_keep_the_rules(
        steps in prop::collection::vec((0..CLIENTS, 0_u8..18, 0_i64..9000), 1..200),
    ) {
        let mut driver = Driver::new();
        for (who, what, ms) in steps {
            driver.step(who, what, ms);
            driver.listen();
            driver.check();
        }
        // Given time, nobody waits for ever, and nothing is left.
        while !driver.writes.is_empty() {
            driver.store(true);
            driver.listen();
        }
        for _ in 0..300 {
            driver.desk.pass(10_000);
            driver.listen();
            driver.check();
        }
        prop_assert!(driver.parked.is_empty(), "{:?}", driver.parked);
        prop_assert!(driver.desk.groups.get("g").is_none());
        prop_assert_eq!(driver.desk.groups.deadlines.len(), 0);
    }
}
