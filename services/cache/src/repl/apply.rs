//! What a master sends, as the commands of a connection that is nobody's.
//!
//! Invariants: a command is consumed when it has run or will run to its end, whatever becomes of the link; keys that are
//! due are found by it. Next: `session.rs` for how commands run, `link.rs` for where they come from.

use std::rc::Rc;

use engine::error::{Error, Kind};
use engine::exec::sync::yield_now;
use engine::net::Server;
use view::{Flow, Input, Output, Session as _};
use wire::resp::{Reply, decode_reply};

use super::Applies;
use crate::{Session, Shard, serve::Cache, work::Work};

/// Runs commands as a master's.
pub(crate) struct Applier {
    session: Session,
    out: Output,
    /// Commands that failed here, though they had not on the master; the last of them is told.
    pub(crate) failed: u64,
    /// When they run.
    applies: Applies,
    /// Commands may fail for want of keys that have yet to come.
    is_lenient: bool,
}

/// How far some bytes were applied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    /// Bytes of commands that were taken.
    pub(crate) taken: usize,
    /// The last of them are in a transaction that has not ended, and wait for its end.
    pub(crate) waits: bool,
}

impl Applier {
    pub(crate) fn new() -> Self {
        let (applies, is_lenient) = (Applies::NOW, false);
        let out = Output::default();
        Self { session: Session::applying(), out, failed: 0, applies, is_lenient }
    }

    /// What comes from now on runs at this time, 0 for now.
    pub(crate) const fn set_clock(&mut self, clock_ms: u64) {
        self.applies = Applies::at(clock_ms);
        self.session.set_applies(self.applies);
    }

    /// Whether commands may fail for want of keys that have yet to come.
    pub(crate) const fn set_lenient(&mut self, is_lenient: bool) {
        self.is_lenient = is_lenient;
    }

    /// The link has ended: a command that has not come whole comes again.
    pub(crate) fn begin_anew(&mut self) {
        self.session.begin_anew();
    }

    /// Applies the commands at the front of `bytes`, until `ends` says that no more are to be.
    ///
    /// # Errors
    /// They are no commands, or commands that cannot be applied here.
    pub(crate) async fn apply(
        &mut self,
        server: &Rc<Server<Cache>>,
        bytes: &[u8],
        ends: impl Fn() -> bool,
    ) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        while applied.taken < bytes.len() && !ends() {
            let rest = bytes.get(applied.taken..).unwrap_or_default();
            let mut input = Input::borrowed(rest);
            let mut flow = self.step(server, |session, out, shard, now| {
                session.on_bytes(&mut input, out, shard, now)
            });
            applied.taken += input.consumed();
            let waits = matches!(flow, Flow::Await(_));
            flow = self.drive(server, flow).await;
            self.look(server)?;
            match flow {
                Flow::NeedInput if input.consumed() == 0 => break,
                Flow::Close => {
                    let context = "what the master sends cannot be applied: no command, or the log has failed";
                    return Err(Error::new("replicate", Kind::Invalid, context));
                }
                _ => {}
            }
            if !waits {
                yield_now().await;
            }
        }
        applied.waits = self.session.queues();
        Ok(applied)
    }

    /// Goes on until nothing is waited for.
    async fn drive(&mut self, server: &Rc<Server<Cache>>, first: Flow<Work>) -> Flow<Work> {
        let mut flow = first;
        while let Flow::Await(work) = flow {
            let done = Cache::work(Rc::clone(server), work).await;
            flow = self
                .step(server, |session, out, shard, now| session.on_done(done, out, shard, now));
        }
        flow
    }

    fn step(
        &mut self,
        server: &Server<Cache>,
        step: impl FnOnce(&mut Session, &mut Output, &mut Shard, view::Instant) -> Flow<Work>,
    ) -> Flow<Work> {
        let now = self.applies.time(server.cx().now());
        let mut shard = server.shard().borrow_mut();
        let before = shard.show_due_keys(self.applies);
        let flow = step(&mut self.session, &mut self.out, &mut shard, now);
        shard.hide_due_keys(before);
        flow
    }

    /// Looks for errors among the replies, which go nowhere.
    fn look(&mut self, server: &Server<Cache>) -> Result<(), Error> {
        let replies = if self.out.is_inline() { self.out.inline() } else { &[] };
        let has_error =
            replies.first() == Some(&b'-') || replies.windows(3).any(|at| at == b"\r\n-");
        let found = if has_error { first_error(replies) } else { None };
        self.out.clear();
        let Some(text) = found else { return Ok(()) };
        if text.contains("MISCONF") {
            // It has not run, and must not count as applied.
            return Err(log_failed());
        }
        if self.is_lenient {
            return Ok(());
        }
        if text.contains("DB index is out of range") {
            let context = "the master uses more databases than there are here";
            return Err(Error::new("replicate", Kind::Invalid, context)
                .remedied("start this server with as many --databases as the master"));
        }
        self.failed += 1;
        let cx = server.cx();
        let what = "a command of the master failed here: the replica may differ";
        cx.log().warn("cache", cx.now(), what, &[("error", &text), ("failed", &self.failed)]);
        Ok(())
    }
}

/// Nothing can be applied while this server's own log cannot be written.
pub(super) fn log_failed() -> Error {
    let context =
        "what the master sends cannot be applied: the append-only log here cannot be written";
    Error::new("replicate", Kind::Invalid, context)
        .remedied("see why in the log: a full disk, or one that fails")
}

/// The first error among replies.
fn first_error(mut replies: &[u8]) -> Option<String> {
    while let Ok(Some((reply, len))) = decode_reply(replies) {
        if let Some(text) = error_in(&reply) {
            return Some(text);
        }
        replies = replies.get(len..).unwrap_or_default();
    }
    None
}

fn error_in(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
        // What a transaction replies.
        Reply::Array(replies) => replies.iter().find_map(error_in),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_among_replies_and_inside_transactions() {
        assert_eq!(first_error(b"+OK\r\n:1\r\n$3\r\n\r\n-\r\n"), None);
        assert_eq!(first_error(b":1\r\n-ERR no\r\n+OK\r\n").as_deref(), Some("ERR no"));
        let inside = first_error(b"+OK\r\n*2\r\n:1\r\n-WRONGTYPE x\r\n");
        assert_eq!(inside.as_deref(), Some("WRONGTYPE x"));
    }
}
