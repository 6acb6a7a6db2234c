//! WAIT: until so many replicas have applied what was written before.
//!
//! The session asks all shards how far their replicas are, again and again: whoever waits is alone in paying for it.
//! Invariant: a replica counts when its flows of all shards have what the journals held when the wait began.
//! Next: `session.rs` for who carries it.

use view::Instant;

use super::Followers;
use crate::{
    admin::{Answer, Ask},
    work::{Op, Request, Response, Work},
};

/// How soon it is looked again, at first and at most.
const FIRST_US: u64 = 200;
const LAST_US: u64 = 8_000;

/// A client that waits.
#[derive(Debug)]
pub struct Wait {
    replicas: u64,
    /// When it ends in any case.
    deadline_ns: Option<u64>,
    /// How far the shards' journals had come.
    ends: Option<Vec<u64>>,
    pause_us: u64,
}

/// What follows a look.
pub(crate) enum Next {
    /// So many replicas have all.
    Count(u64),
    /// A pause of so many microseconds.
    Pause(u64),
}

/// What each shard is asked.
pub(crate) fn questions(shards: u16) -> Vec<(u16, Request)> {
    let op = || Op::Admin(Ask::Followers);
    (0..shards).map(|shard| (shard, Request::Op { ticket: 0, op: op(), unlock: false })).collect()
}

/// What the shards have answered.
pub(crate) fn answers(responses: Vec<Response>) -> Vec<Followers> {
    let told = |response| match response {
        Response::Admin(answer) => match *answer {
            Answer::Followers(followers) => followers,
            _ => Followers::default(),
        },
        _ => Followers::default(),
    };
    responses.into_iter().map(told).collect()
}

/// The replicas all of whose flows have come this far.
pub(crate) fn arrived<'a>(
    shards: &'a [Followers],
    ends: &'a [u64],
) -> impl Iterator<Item = &'a str> {
    let has_all = move |replica: &str| {
        shards.iter().zip(ends).all(|(followers, end)| {
            let has = |flow: &super::Behind| {
                flow.replica == replica && flow.is_online && flow.acked >= *end
            };
            followers.flows.iter().any(has)
        })
    };
    let first = shards.first().map(|followers| followers.flows.as_slice()).unwrap_or_default();
    let names = first.iter().map(|flow| flow.replica.as_str());
    names.filter(move |name| has_all(name))
}

impl Wait {
    /// For so many replicas, so many milliseconds at most; 0 for as long as it takes.
    pub(crate) fn new(replicas: u64, timeout_ms: u64, now: Instant) -> Self {
        let deadline = now.mono_ns.saturating_add(timeout_ms.saturating_mul(1_000_000));
        let deadline_ns = (timeout_ms > 0).then_some(deadline);
        Self { replicas, deadline_ns, ends: None, pause_us: FIRST_US }
    }

    /// Asks all shards.
    pub(crate) fn ask(shards: u16) -> Work {
        Work::Exchange(questions(shards))
    }

    /// Takes their answers.
    pub(crate) fn take(&mut self, responses: Vec<Response>, now: Instant) -> Next {
        let shards = answers(responses);
        let ends = || shards.iter().map(|followers| followers.end).collect();
        let ends = self.ends.get_or_insert_with(ends);
        let count = arrived(&shards, ends).count() as u64;
        let is_over = self.deadline_ns.is_some_and(|deadline_ns| now.mono_ns >= deadline_ns);
        if count >= self.replicas || is_over {
            return Next::Count(count);
        }
        let pause_us = self.pause_us;
        self.pause_us = (pause_us * 2).min(LAST_US);
        let left_ns = self.deadline_ns.map_or(u64::MAX, |at| at.saturating_sub(now.mono_ns));
        Next::Pause(pause_us.min(left_ns.div_ceil(1_000)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Behind;

    fn told(shards: &[(u64, &[(&str, u64)])]) -> Vec<Response> {
        let flow = |(replica, acked): &(&str, u64)| Behind {
            replica: (*replica).into(),
            is_online: true,
            acked: *acked,
            heard_ms: 0,
        };
        let answer = |(end, flows): &(u64, &[(&str, u64)])| {
            let flows = flows.iter().map(flow).collect();
            let followers = Followers { end: *end, is_crowded: false, flows };
            Response::Admin(Box::new(Answer::Followers(followers)))
        };
        shards.iter().map(answer).collect()
    }

    #[test]
    fn a_replica_counts_when_all_its_flows_have_what_was_written_before() {
        let at = |ms: u64| Instant { mono_ns: ms * 1_000_000, unix_us: 0 };
        let mut wait = Wait::new(2, 100, at(0));
        let first = told(&[(10, &[("a", 10), ("b", 9)]), (5, &[("a", 4), ("b", 5)])]);
        assert!(matches!(wait.take(first, at(1)), Next::Pause(FIRST_US)));
        // What is written later does not matter, and a flow is not enough.
        let then = told(&[(90, &[("a", 10), ("b", 11)]), (80, &[("a", 4), ("b", 5)])]);
        assert!(matches!(wait.take(then, at(2)), Next::Pause(_)));
        let all = || told(&[(90, &[("a", 10), ("b", 11)]), (80, &[("a", 5), ("b", 5)])]);
        assert!(matches!(wait.take(all(), at(3)), Next::Count(2)));
        let one = told(&[(90, &[("b", 11)]), (80, &[("a", 5), ("b", 5)])]);
        assert!(matches!(wait.take(one, at(100)), Next::Count(1)), "time is up");
    }
}
