//! What must hold of a consumer group, by what its members were told: the shadow model of a coordinator.
//!
//! Generations are checked within a life of the machine, since one that nobody was assigned anything in may come again
//! after a crash; assignments and commits are checked over all lives, since what a client was told of them was stored.
//! A commit without an answer may take effect until the machine stops, and once. Next: `member` for who asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Errors of the protocol.
pub(super) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub(super) const NOT_COORDINATOR: i16 = 16;
pub(super) const ILLEGAL_GENERATION: i16 = 22;
pub(super) const UNKNOWN_MEMBER: i16 = 25;
pub(super) const REBALANCE: i16 = 27;
pub(super) const ID_REQUIRED: i16 = 79;
pub(super) const FENCED: i16 = 82;

/// Instances of static members begin like this.
pub(super) const STATIC: &str = "static";

/// Who a member is over all its ids: static ones by their instance.
fn key(id: &str) -> &str {
    match id.split_once('-') {
        Some((instance, _)) if instance.starts_with(STATIC) => instance,
        _ => id,
    }
}

/// What a member says of itself in a request.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) id: String,
    pub(super) generation: i32,
    /// It must be refused.
    void: bool,
}

/// When a request was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking {
    /// The latest generation that was stored.
    floor: i32,
    life: u64,
}

/// A generation as its members were told.
#[derive(Debug, Default)]
struct Generation {
    leader: String,
    /// By the leader's answer.
    members: Option<BTreeSet<String>>,
    joined: BTreeSet<String>,
}

/// An assignment as a leader sent it.
type Plan = BTreeMap<String, Vec<u8>>;

#[derive(Debug)]
struct Commit {
    value: i64,
    sent: u64,
    /// It has taken effect by then.
    effective: u64,
    /// It takes no effect after.
    finished: u64,
    refused: bool,
    /// Another was read in its place.
    superseded: bool,
}

/// What may be answered about one group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Of this life of the machine.
    generations: BTreeMap<i32, Generation>,
    /// The latest that a member was told of in this life.
    told: i32,
    /// The latest that an assignment was handed out of.
    stored: i32,
    /// By generation, what leaders sent; those that can still be the one that is handed out.
    plans: BTreeMap<i32, Vec<Plan>>,
    /// Who was handed each partition, by generation.
    owners: BTreeMap<(i32, i32), String>,
    /// Ids that have left in this life.
    left: BTreeSet<String>,
    /// Ids of static members that are back under another.
    replaced: BTreeSet<String>,
    /// The last id that each static member was told.
    instances: BTreeMap<String, String>,
    commits: BTreeMap<i32, Vec<Commit>>,
    next_value: i64,
    clock: u64,
    /// How often the machine has stopped.
    life: u64,
    story: VecDeque<String>,
}

/// Lines of what was asked and answered that are kept for a failure report.
const STORY_MAX: usize = 60;

impl Group {
    /// Keeps a line for a failure report.
    pub(super) fn tell(&mut self, line: String) {
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// The last lines.
    pub(super) fn story(&self) -> impl Iterator<Item = &String> {
        self.story.iter()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The machine has stopped: nothing that is under way takes effect any more.
    pub(super) fn life_ended(&mut self) {
        let now = self.tick();
        self.tell("the machine stops".into());
        self.life += 1;
        for commit in self.commits.values_mut().flatten() {
            commit.finished = commit.finished.min(now);
        }
        self.generations.clear();
        self.left.clear();
        // An id that was told of in a generation without an assignment is not stored.
        self.replaced.clear();
        self.instances.clear();
        self.told = self.stored;
    }

    /// A request is sent in the name of a member.
    pub(super) fn claim(&self, id: &str, generation: i32) -> Claim {
        let gone = self.left.contains(id) || self.replaced.contains(id);
        let void = gone || generation < self.told.max(self.stored) || id.is_empty();
        Claim { id: id.to_owned(), generation, void }
    }

    /// The answer to a sign of life or a commit.
    pub(super) fn answered(&self, claim: &Claim, code: i16) -> Result<(), String> {
        let fenced = [ILLEGAL_GENERATION, UNKNOWN_MEMBER, FENCED].contains(&code);
        let away = [COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR].contains(&code);
        let fits = if claim.void { false } else { code == 0 || code == REBALANCE };
        if fenced || away || fits {
            return Ok(());
        }
        Err(format!("{claim:?} was answered with {code}; generation {} was told", self.told))
    }

    /// Somebody asks to join: what the answer may not fall behind.
    pub(super) const fn ask(&self) -> Asking {
        Asking { floor: self.stored, life: self.life }
    }

    /// A member was told that it is one of a generation. The leader is told all `members`.
    pub(super) fn joined(
        &mut self,
        id: &str,
        generation: i32,
        leader: &str,
        members: &[String],
        asking: Asking,
    ) -> Result<(), String> {
        let refuse = |what: &str| {
            Err(format!(
                "{id} joined generation {generation} led by {leader} of {members:?}: {what}"
            ))
        };
        if generation < asking.floor {
            return refuse(&format!("{} was assigned before", asking.floor));
        }
        if id.is_empty() || leader.is_empty() {
            return refuse("nobody");
        }
        if asking.life != self.life {
            // It arrived after the machine that sent it had stopped.
            return Ok(());
        }
        let known = self.generations.entry(generation).or_default();
        if known.leader.is_empty() {
            known.leader = key(leader).to_owned();
        } else if known.leader != key(leader) {
            return refuse(&format!("{} leads it", known.leader));
        }
        known.joined.insert(key(id).to_owned());
        if leader == id || !members.is_empty() {
            let members: BTreeSet<String> = members.iter().map(|one| key(one).to_owned()).collect();
            match &known.members {
                Some(before) if *before != members => {
                    return refuse(&format!("it has the members {before:?}"));
                }
                _ => known.members = Some(members),
            }
        }
        if let Some(members) = &known.members {
            if !members.contains(&known.leader) {
                return refuse("the leader is no member");
            }
            if !known.joined.is_subset(members) {
                return refuse("not all that joined are members");
            }
        }
        self.told = self.told.max(generation);
        self.left.remove(id);
        if key(id) != id
            && let Some(before) = self.instances.insert(key(id).to_owned(), id.to_owned())
            && before != id
        {
            self.replaced.insert(before);
        }
        Ok(())
    }

    /// A leader sends its assignment.
    pub(super) fn planned(&mut self, generation: i32, plan: Plan) {
        let plan = plan.into_iter().map(|(id, bytes)| (key(&id).to_owned(), bytes)).collect();
        let plans = self.plans.entry(generation).or_default();
        // Once one was handed out, no other can be.
        if !plans.contains(&plan) && generation > self.stored {
            plans.push(plan);
        }
    }

    /// A member was handed its assignment: these partitions.
    pub(super) fn assigned(
        &mut self,
        claim: &Claim,
        bytes: &[u8],
        partitions: &[i32],
    ) -> Result<(), String> {
        let (id, generation) = (key(&claim.id), claim.generation);
        let text = String::from_utf8_lossy(bytes);
        if claim.void {
            return Err(format!("{claim:?} was assigned {text}"));
        }
        let plans = self.plans.entry(generation).or_default();
        plans.retain(|plan| plan.get(id).is_some_and(|sent| sent == bytes));
        if plans.is_empty() {
            return Err(format!("no leader of generation {generation} sent {text} for {id}"));
        }
        for partition in partitions {
            let owner =
                self.owners.entry((generation, *partition)).or_insert_with(|| id.to_owned());
            if owner != id {
                return Err(format!(
                    "{owner} and {id} have {partition} of generation {generation}"
                ));
            }
        }
        self.stored = self.stored.max(generation);
        Ok(())
    }

    /// A member has left.
    pub(super) fn left(&mut self, id: &str, asking: Asking) {
        if asking.life == self.life {
            self.left.insert(id.to_owned());
        }
    }

    /// An offset to commit, which nobody else commits.
    pub(super) fn commit(&mut self, partition: i32) -> i64 {
        let sent = self.tick();
        self.next_value += 1;
        let value = self.next_value;
        self.commits.entry(partition).or_default().push(Commit {
            value,
            sent,
            effective: u64::MAX,
            finished: u64::MAX,
            refused: false,
            superseded: false,
        });
        value
    }

    /// The answer to a commit.
    pub(super) fn committed(&mut self, partition: i32, value: i64, code: i16) {
        let now = self.tick();
        let commits = self.commits.entry(partition).or_default();
        let Some(commit) = commits.iter_mut().find(|one| one.value == value) else { return };
        match code {
            0 => (commit.effective, commit.finished) = (now, commit.finished.min(now)),
            // It may have been stored all the same.
            COORDINATOR_NOT_AVAILABLE => {}
            _ => commit.refused = true,
        }
    }

    /// Commits are asked for.
    pub(super) fn fetch(&mut self) -> u64 {
        self.tick()
    }

    /// What is committed for a partition, asked for at `sent`; -1 for nothing.
    pub(super) fn fetched(&mut self, partition: i32, value: i64, sent: u64) -> Result<(), String> {
        let now = self.tick();
        let commits = self.commits.entry(partition).or_default();
        let last = commits.iter().filter(|one| one.effective < sent).max_by_key(|one| one.sent);
        if value == -1 {
            return last.map_or(Ok(()), |lost| {
                Err(format!("{} was committed for {partition}, and nothing is", lost.value))
            });
        }
        let Some(at) = commits.iter().position(|one| one.value == value) else {
            return Err(format!("{value} is committed for {partition}, which nobody asked for"));
        };
        let found = &commits[at];
        if found.refused {
            return Err(format!("{value} is committed for {partition}, and was refused"));
        }
        if found.superseded || last.is_some_and(|last| found.finished < last.sent) {
            let last = last.map_or(-1, |last| last.value);
            return Err(format!("{value} is committed for {partition}, and {last} was after it"));
        }
        for (other, commit) in commits.iter_mut().enumerate() {
            if other == at {
                commit.effective = commit.effective.min(now);
                commit.finished = commit.finished.min(now);
            } else if commit.effective < sent {
                commit.superseded = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(floor: i32) -> Asking {
        Asking { floor, life: 0 }
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Members a and b of generation 1, led by a.
    fn formed() -> Group {
        let mut group = Group::default();
        group.joined("b", 1, "a", &[], Asking::default()).expect("as it is");
        group.joined("a", 1, "a", &names(&["a", "b"]), Asking::default()).expect("as it is");
        group
            .planned(1, BTreeMap::from([("a".into(), b"0".to_vec()), ("b".into(), b"1".to_vec())]));
        group
    }

    #[test]
    fn a_commit_that_is_lost_or_goes_back_is_found() {
        let mut group = Group::default();
        let first = group.commit(0);
        group.committed(0, first, 0);
        let sent = group.fetch();
        assert!(group.fetched(0, -1, sent).is_err(), "lost");
        assert!(group.fetched(0, first, sent).is_ok());
        let second = group.commit(0);
        let sent = group.fetch();
        assert!(group.fetched(0, first, sent).is_ok(), "not answered yet");
        group.committed(0, second, 0);
        assert!(group.fetched(0, first, sent).is_ok(), "asked before");
        let sent = group.fetch();
        assert!(group.fetched(0, first, sent).is_err(), "back");
        assert!(group.fetched(0, 77, sent).is_err(), "invented");
        let third = group.commit(0);
        group.committed(0, third, ILLEGAL_GENERATION);
        let sent = group.fetch();
        assert!(group.fetched(0, third, sent).is_err(), "refused");
    }

    #[test]
    fn a_commit_without_an_answer_may_take_effect_until_the_machine_stops_and_once() {
        let mut group = Group::default();
        let open = group.commit(0);
        let after = group.commit(0);
        group.committed(0, after, 0);
        let sent = group.fetch();
        assert!(group.fetched(0, open, sent).is_ok(), "late");
        let sent = group.fetch();
        assert!(group.fetched(0, after, sent).is_err(), "the other was in its place");
        let open = group.commit(0);
        group.life_ended();
        let last = group.commit(0);
        group.committed(0, last, 0);
        let sent = group.fetch();
        assert!(group.fetched(0, open, sent).is_err(), "the machine that had it is gone");
    }

    #[test]
    fn what_is_not_of_the_generation_must_be_refused() {
        let mut group = formed();
        let old = group.claim("a", 0);
        assert!(group.answered(&old, 0).is_err() && group.answered(&old, REBALANCE).is_err());
        assert!(group.answered(&old, ILLEGAL_GENERATION).is_ok());
        let current = group.claim("a", 1);
        assert!(group.answered(&current, 0).is_ok() && group.answered(&current, 99).is_err());
        group.left("a", Asking::default());
        let gone = group.claim("a", 1);
        assert!(group.answered(&gone, 0).is_err());
        assert!(group.assigned(&gone, b"0", &[0]).is_err());
        assert!(group.answered(&group.claim("", 1), 0).is_err());
    }

    #[test]
    fn generations_have_one_leader_who_is_a_member() {
        let group = formed;
        assert!(group().joined("c", 1, "a", &[], Asking::default()).is_err(), "no member");
        assert!(
            group().joined("b", 1, "b", &names(&["a", "b"]), Asking::default()).is_err(),
            "two leaders"
        );
        assert!(
            group().joined("a", 1, "a", &names(&["a"]), Asking::default()).is_err(),
            "other members"
        );
        assert!(
            group().joined("a", 2, "a", &names(&["b"]), Asking::default()).is_err(),
            "the leader is none"
        );
        assert!(group().joined("a", 1, "a", &names(&["a", "b"]), after(2)).is_err(), "back");
        assert!(group().joined("a", 2, "", &[], Asking::default()).is_err(), "nobody leads");
        assert!(group().joined("a", 2, "a", &names(&["a"]), after(1)).is_ok());
    }

    #[test]
    fn a_generation_has_one_assignment_which_is_its_leaders() {
        let mut group = formed();
        let (a, b) = (group.claim("a", 1), group.claim("b", 1));
        assert!(group.assigned(&a, b"0", &[0]).is_ok());
        let mut both = formed();
        assert!(both.assigned(&b, b"7", &[7]).is_err(), "not what was sent");
        let other = BTreeMap::from([("a".into(), b"2".to_vec()), ("b".into(), b"3".to_vec())]);
        let mut two = formed();
        two.planned(1, other);
        assert!(two.assigned(&a, b"2", &[2]).is_ok());
        assert!(two.assigned(&b, b"1", &[1]).is_err(), "half of one, half of the other");
        assert!(group.assigned(&b, b"1", &[0]).is_err(), "one partition, two members");
    }

    #[test]
    fn a_static_member_that_is_back_fences_its_former_id() {
        let mut group = Group::default();
        group
            .joined("static1-x", 1, "static1-x", &names(&["static1-x"]), Asking::default())
            .expect("as it is");
        let before = group.claim("static1-x", 1);
        assert!(group.answered(&before, 0).is_ok());
        group
            .joined("static1-y", 1, "static1-x", &[], Asking::default())
            .expect("told who led before");
        let before = group.claim("static1-x", 1);
        assert!(group.answered(&before, 0).is_err() && group.answered(&before, FENCED).is_ok());
    }
}
