//! What administrators' commands ask of every shard, and what they get back.
//!
//! One [`Ask`] goes to all shards, as CONFIG SET does; a function makes the reply of their answers. Invariant: everything
//! here is plain data that crosses threads. Next: `command/admin.rs` and its neighbours for who asks.

use view::{Instant, Output};
use wire::resp::Version;

use crate::{
    acl::{LogEntry, User},
    clients::Filter,
    flow::Followers,
    repl::Master,
    shard::Shard,
    watch::{
        Pause,
        latency::{Events, Histogram},
        slow,
    },
    work::Response,
};

/// A question to a shard, or something it is to do.
#[derive(Clone, Debug)]
pub enum Ask {
    /// This user is as told from now on.
    PutUser(Box<User>),
    /// These users are gone, and their connections; counts the users.
    RemoveUsers(Vec<Box<[u8]>>),
    /// There are these users and no others.
    ReplaceUsers(Vec<User>),
    /// The newest entries of ACL LOG.
    AclLog(usize),
    /// No entries any more.
    ResetAclLog,
    /// The newest entries of the slow log.
    SlowLog(usize),
    /// How many there are.
    SlowLogLen,
    /// None any more.
    ResetSlowLog,
    /// Peaks of all events.
    Latency,
    /// No peaks of these events any more, or of any.
    ResetLatency(Vec<String>),
    /// How long commands took.
    Histograms,
    /// Lines for the monitors there.
    Show(Vec<u8>),
    /// A shard has so many monitors.
    Monitors {
        /// Which.
        shard: u16,
        /// How many.
        count: u32,
    },
    /// Hold commands back until then, or no longer; only those that write.
    Pause(Option<(u64, bool)>),
    /// Exchange two databases.
    Swap(u16, u16),
    /// Look for due keys, or do not.
    ActiveExpire(bool),
    /// Counters.
    Report,
    /// Follow another master, or none any more.
    Follow(Option<Master>),
    /// How the link to the master is.
    Link {
        /// Commands come.
        up: bool,
        /// A data set is being loaded.
        loads: bool,
        /// The master tells when its commands run.
        has_time: bool,
    },
    /// A moment from which flows may begin; where the journal is then.
    Cut,
    /// The history of places in the journal, 0 for none, and 0.
    FlowPlace,
    /// Where the journal ends, and who follows it.
    Followers,
}

/// What a shard answers, where a number does not do.
#[derive(Debug)]
pub enum Answer {
    /// Entries of ACL LOG.
    #[doc(hidden)]
    AclLog(AclEntries),
    /// Entries of the slow log.
    #[doc(hidden)]
    SlowLog(SlowEntries),
    /// Peaks.
    #[doc(hidden)]
    Latency(Peaks),
    /// Histograms by command id.
    #[doc(hidden)]
    Histograms(Times),
    /// Who follows a shard.
    #[doc(hidden)]
    Followers(Followers),
}

/// Entries of ACL LOG.
#[derive(Debug)]
pub struct AclEntries(pub(crate) Vec<LogEntry>);
/// Entries of the slow log.
#[derive(Debug)]
pub struct SlowEntries(pub(crate) Vec<slow::Entry>);
/// Peaks by event.
#[derive(Debug)]
pub struct Peaks(pub(crate) Events);
/// Histograms by command id.
#[derive(Debug)]
pub struct Times(pub(crate) Vec<(u16, Box<Histogram>)>);

/// What the reply to an [`Ask`] is made with.
pub(crate) struct Replying<'a> {
    pub(crate) out: &'a mut Output,
    pub(crate) shard: &'a mut Shard,
    pub(crate) version: Version,
    pub(crate) now: Instant,
}

/// Makes the reply of all shards' answers.
pub(crate) type Finish = fn(&mut Replying<'_>, &Ask, Vec<Response>);

/// A [`Finish`], or one that is told one more word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Plain(Finish),
    About(fn(&mut Replying<'_>, &str, Vec<Response>)),
}

/// The numbers in answers, summed up.
pub(crate) fn sum(responses: &[Response]) -> u64 {
    let one = |response: &Response| match response {
        Response::Count(count) => *count,
        _ => 0,
    };
    responses.iter().map(one).sum()
}

/// `+OK`.
pub(crate) fn ok(reply: &mut Replying<'_>, _: &Ask, _: Vec<Response>) {
    wire::resp::reply::ok(reply.out.inline_mut());
}

/// The sum of the shards' numbers.
pub(crate) fn total(reply: &mut Replying<'_>, _: &Ask, responses: Vec<Response>) {
    let total = i64::try_from(sum(&responses)).unwrap_or(i64::MAX);
    wire::resp::reply::integer(reply.out.inline_mut(), total);
}

/// The first shard's number: all have the same.
pub(crate) fn first(reply: &mut Replying<'_>, ask: &Ask, mut responses: Vec<Response>) {
    responses.truncate(1);
    total(reply, ask, responses);
}

impl Shard {
    /// Does what was asked.
    pub(crate) fn run_ask(&mut self, ask: Ask, now: Instant) -> Response {
        match ask {
            Ask::PutUser(user) => self.acl.put(*user),
            Ask::RemoveUsers(names) => {
                let removed = names.iter().filter(|name| self.acl.remove(name)).count();
                names.iter().for_each(|name| self.kill_user(name));
                self.look_again();
                return Response::Count(removed as u64);
            }
            Ask::ReplaceUsers(users) => {
                let gone = self.acl.replace(users);
                gone.iter().for_each(|name| self.kill_user(name));
            }
            Ask::AclLog(most) => {
                let entries = AclEntries(self.acl.log.newest(most));
                return Response::Admin(Box::new(Answer::AclLog(entries)));
            }
            Ask::ResetAclLog => self.acl.log.clear(),
            Ask::SlowLog(most) => {
                let entries = SlowEntries(self.watch.slow.newest(most));
                return Response::Admin(Box::new(Answer::SlowLog(entries)));
            }
            Ask::SlowLogLen => return Response::Count(self.watch.slow.len() as u64),
            Ask::ResetSlowLog => self.watch.slow.clear(),
            Ask::Latency => {
                let peaks = Peaks(self.watch.events.clone());
                return Response::Admin(Box::new(Answer::Latency(peaks)));
            }
            Ask::ResetLatency(names) => {
                return Response::Count(self.watch.events.reset(&names) as u64);
            }
            Ask::Histograms => {
                let all = (0..).zip(&self.watch.histograms);
                let kept = all.filter_map(|(id, histogram)| Some((id, histogram.clone()?)));
                return Response::Admin(Box::new(Answer::Histograms(Times(kept.collect()))));
            }
            Ask::Show(lines) => {
                self.watch.monitors.show(&lines);
                return Response::Done;
            }
            Ask::Monitors { shard, count } => self.watch.monitors.set_count(shard, count),
            Ask::Pause(None) => self.watch.pause = None,
            Ask::Pause(Some((until_ms, writes))) => self.pause(until_ms, writes, now),
            Ask::Swap(one, two) => self.store.swap(one, two),
            Ask::ActiveExpire(on) => self.expires = on,
            Ask::Report => return Response::Report(Box::new(self.report(now))),
            Ask::Follow(master) => self.follow(master, now),
            // It may be that of a master that is not followed any more.
            Ask::Link { up, loads, has_time } if self.role.follows => {
                self.take_link(up, loads, has_time);
            }
            Ask::Link { .. } => {}
            Ask::Cut => {
                let at = self.cut(now);
                return Response::Counts(vec![self.flow_history(), at]);
            }
            Ask::FlowPlace => return Response::Counts(vec![self.flow_history(), 0]),
            Ask::Followers => {
                return Response::Admin(Box::new(Answer::Followers(self.followers())));
            }
        }
        self.look_again();
        Response::Done
    }

    /// A pause that is longer or holds back more stays in force.
    fn pause(&mut self, until_ms: u64, writes: bool, now: Instant) {
        let before = self.watch.pause.filter(|pause| pause.until_ms > now.unix_ms());
        let (until_ms, writes) = match before {
            None => (until_ms, writes),
            Some(pause) => (pause.until_ms.max(until_ms), pause.writes && writes),
        };
        self.watch.pause = Some(Pause { until_ms, writes });
    }

    fn kill_user(&mut self, name: &[u8]) {
        if name != crate::acl::DEFAULT {
            self.clients.kill(&Filter { user: Some(name.to_vec()), ..Filter::default() });
        }
    }
}
