//! A flow on the master's side: one task per connection of a replica.
//!
//! It puts what is to be sent into the connection's output as long as that is small, so a replica that reads slowly costs
//! nothing but the backlog. Invariant: a piece of the base is made only when all of the journal before it is in the output.
//! Next: `mod.rs` for frames, `backlog.rs` for what is kept.

use std::rc::Rc;

use bytes::Bytes;
use engine::exec::sync::{within, yield_now};
use engine::net::{ConnId, Server};
use view::{Instant, Output};

use crate::{aof, serve::Cache, shard::Shard};

/// No more is put into an output that holds so much.
const OUTPUT_MAX_BYTES: usize = 64 << 10;
/// Bytes of the journal per frame.
const FRAME_BYTES: usize = 16 << 10;
/// And of a base: more would take too long at a time.
const PIECE_BYTES: usize = 4 << 10;
/// How soon an output that was full is looked at again.
const FULL_NS: u64 = 1_000_000;
/// How often a flow that has nothing says that it is there.
const QUIET_NS: u64 = 1_000_000_000;

/// What a step of a flow led to.
enum Step {
    /// There is more.
    More,
    /// There is more of a base, which can wait.
    Base,
    /// The replica has to read first, or keys have to come back.
    Full,
    /// There is nothing.
    Idle,
    /// It is too far behind.
    Cut,
}

/// Starts the tasks of flows that have begun.
pub(crate) fn turn(server: &Rc<Server<Cache>>) {
    let new = std::mem::take(&mut server.shard().borrow_mut().flows.new);
    for client in new {
        server.service().flows().is_on.set(true);
        server.cx().spawn("cache flow", run(Rc::clone(server), client));
    }
}

async fn run(server: Rc<Server<Cache>>, client: u64) {
    let cx = server.cx().clone();
    let flow = server.shard().borrow().flows.get(client).cloned();
    let Some(flow) = flow else { return };
    let conn = ConnId::from_bits(flow.conn);
    let why = loop {
        let changed = server.service().flows().changed.notified();
        if !server.shard().borrow().flows.has(client) {
            // This server follows another one now, the replica has come again, or the connection is gone.
            server.close(conn);
            return;
        }
        let mut step = Step::Idle;
        let is_there = server.push(conn, |_, out| {
            step = server.shard().borrow_mut().flow_step(client, out, cx.now());
        });
        if !is_there {
            break "the connection has ended";
        }
        match step {
            Step::More => yield_now().await,
            Step::Base => {
                cx.give_way().await;
            }
            Step::Full => cx.sleep(FULL_NS).await,
            Step::Idle => {
                if within(changed, cx.sleep(QUIET_NS)).await.is_none() {
                    tell_time(&server, client, conn);
                }
            }
            Step::Cut => break "it is further behind than client-output-buffer-limit allows",
        }
        if server.shard().borrow().is_flow_silent(client, cx.now()) {
            break "the replica has said nothing for repl-timeout";
        }
    };
    let pairs: [(&str, &dyn std::fmt::Display); 2] = [("replica", &flow.replica), ("why", &why)];
    cx.log().warn("cache", cx.now(), "a replica's flow is closed", &pairs);
    server.close(conn);
    server.shard().borrow_mut().end_flow(client);
}

/// Says that nothing has changed until now.
fn tell_time(server: &Server<Cache>, client: u64, conn: ConnId) {
    server.push(conn, |_, out| {
        let time = server.shard().borrow().flow_time(client, server.cx().now());
        if let Some(ms) = time {
            head(out, b'P', ms);
        }
    });
}

/// The head of a frame.
fn head(out: &mut Output, kind: u8, number: u64) {
    let mut digits = itoa::Buffer::new();
    out.write(&[kind]);
    out.write(digits.format(number).as_bytes());
    out.write(b"\r\n");
}

impl Shard {
    /// Puts the next frame of a flow into its output.
    fn flow_step(&mut self, client: u64, out: &mut Output, now: Instant) -> Step {
        let Some(flow) = self.flows.get(client) else { return Step::Cut };
        let read = self.journal.as_ref().and_then(|journal| journal.backlog.as_ref());
        let Some(bytes) = read.and_then(|backlog| backlog.read(flow.sent, FRAME_BYTES)) else {
            return Step::Cut;
        };
        if out.len() > OUTPUT_MAX_BYTES {
            return Step::Full;
        }
        if !bytes.is_empty() {
            let len = bytes.len() as u64;
            head(out, b'J', len);
            out.push(Bytes::copy_from_slice(bytes));
            if let Some(flow) = self.flows.get_mut(client) {
                flow.sent += len;
            }
            self.trim_backlog();
            return Step::More;
        }
        if flow.base.is_none() {
            return Step::Idle;
        }
        self.base_step(client, out, now);
        let last = self.store.items_db().saturating_sub(1);
        let base = self.flows.get(client).and_then(|flow| flow.base.as_ref());
        match base {
            // It waits only for keys that are lent.
            Some(base) if base.keys.is_empty() && base.place.db > last => Step::Full,
            _ => Step::Base,
        }
    }

    /// Puts the next keys of a base into a flow's output.
    fn base_step(&mut self, client: u64, out: &mut Output, now: Instant) {
        // Items of memcached's protocol, behind the databases, are not replicated.
        let last = self.store.items_db().saturating_sub(1);
        let taken = self.flows.get_mut(client).and_then(|flow| flow.base.take());
        let Some(mut base) = taken else { return };
        if base.keys.is_empty() {
            base.db = base.place.db;
            base.keys = self.base_keys(&mut base.place, last, now);
            base.is_last = false;
            match self.next_base(base.place, last) {
                Some(place) => base.place = place,
                None => base.is_last = true,
            }
        }
        let mut bytes = Vec::new();
        while bytes.len() < PIECE_BYTES {
            let Some(key) = base.keys.pop() else { break };
            if bytes.is_empty() {
                aof::command(&mut bytes, &[b"SELECT", base.db.to_string().as_bytes()]);
            }
            self.write_state(&mut bytes, base.db, &key, now);
        }
        if !bytes.is_empty() {
            head(out, b'B', bytes.len() as u64);
            out.push(bytes.into());
        }
        let is_over = base.is_last && base.keys.is_empty();
        if is_over {
            out.write(b"E\r\n");
        }
        if let Some(flow) = self.flows.get_mut(client) {
            flow.base = (!is_over).then_some(base);
        }
        self.note_bases();
    }
}
