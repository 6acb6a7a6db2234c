//! A connection of this protocol: read a request, run it or hand it on, reply in order.
//!
//! A storage command waits until its data block is there, which then is stored by reference when it is large; one that
//! is too large is passed over as it comes. The keys of a `get` are answered a group at a time, with the memory of all
//! of them loaded first, and a line of any length is read as it comes.
//!
//! Invariants: a request is consumed exactly when it has run or was handed on; per call at most [`MAX_COMMANDS`]
//! commands, [`MAX_KEYS`](super::keys::MAX_KEYS) keys of a `get`, or [`MAX_OUTPUT_BYTES`] of output beyond what crosses it.
//! Next: `run.rs` for what runs here, `remote.rs` for what runs elsewhere.

use view::{Flow, Input, Instant, Mark, Output};
use wire::memcached::{
    KEY_MAX_BYTES, Parsed, Request, Store, Verb, Words, likely_key, parse, reply, rest_of_line,
};

use super::{
    Ask,
    keys::{Reading, answer_keys, look_ahead},
    remote::drop_frame,
    run::{self, Cx, Data},
    stats::{self, Report, Wanted},
};
use crate::{
    hop::Hop,
    session::{MAX_COMMANDS, MAX_OUTPUT_BYTES},
    shard::Shard,
    work::{self, Done, Response, Work},
};

/// A request of this size and more is asked for in one allocation.
const WANT_MIN_BYTES: usize = 32 << 10;
const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
const GONE: &str = "SERVER_ERROR a shard did not answer";

/// One connection.
#[derive(Debug, Default)]
pub struct Session {
    mode: Mode,
    pending: Option<Pending>,
    /// How far the log must be durable before the next replies go out.
    needs: u64,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    #[default]
    Commands,
    /// So many bytes of a data block nobody wants.
    Swallow(usize),
    /// The rest of a line nobody wants.
    Line,
    /// Keys of a `get` whose first ones were answered.
    Keys(Reading),
}

/// What the last `Await` is for.
#[derive(Debug)]
enum Pending {
    Hop(Box<Hop>),
    Flush {
        noreply: bool,
    },
    Stats(Wanted, Box<Report>),
    /// Replies that wait for the log, and what follows them.
    Held(Box<Held>),
}

#[derive(Debug)]
struct Held {
    out: Output,
    flow: Flow<Work>,
    pending: Option<Pending>,
}

/// What a command did to the batch.
enum Step {
    Next,
    /// Keys of a `get` are left; so many bytes of it were consumed.
    Keys(usize),
    /// Not consumed: what is under way to other shards must be answered first.
    Barrier,
    End(Flow<Work>),
}

/// Everything a step needs beside the session.
pub(super) struct Turn<'a> {
    out: &'a mut Output,
    pub(super) shard: &'a mut Shard,
    now: Instant,
    hop: Option<Box<Hop>>,
    /// No further command once there is this much output.
    full: usize,
}

impl Turn<'_> {
    /// Runs something here, its reply in its place.
    pub(super) fn here<R>(&mut self, run: impl FnOnce(&mut Cx<'_>) -> R) -> R {
        let Self { out, shard, now, hop, .. } = self;
        match hop {
            None => run(&mut Cx { shard, out, now: *now }),
            Some(hop) => {
                let result = run(&mut Cx { shard, out: &mut hop.local, now: *now });
                hop.mark_local();
                result
            }
        }
    }

    fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.here(|cx| reply::line(cx.out.inline_mut(), text));
        }
    }

    pub(super) fn owner(&self, key: &[u8]) -> u16 {
        if self.shard.count == 1 { self.shard.index } else { self.shard.topology.owner_of(key) }
    }

    /// Hands a frame on to the shard of its key.
    pub(super) fn hand_on(&mut self, target: u16, frame: &[u8], input: &Input<'_>) {
        let shard = &mut *self.shard;
        let hop = self.hop.get_or_insert_with(|| shard.spare_hops.pop().unwrap_or_default());
        hop.push_frame(target, frame, input, &mut shard.spares);
        shard.stats.hopped_commands += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() + self.hop.as_ref().map_or(0, |hop| hop.local.len()) >= self.full
    }
}

impl Session {
    /// A new connection.
    #[must_use]
    pub const fn new(shard: &mut Shard) -> Self {
        shard.memcached.connections += 1;
        shard.memcached.accepted += 1;
        Self { mode: Mode::Commands, pending: None, needs: 0 }
    }

    fn run(&mut self, input: &mut Input<'_>, turn: &mut Turn<'_>) -> Flow<Work> {
        let mut ahead = 0;
        for _ in 0..MAX_COMMANDS {
            let flow = match self.mode {
                Mode::Commands => {
                    if ahead == 0 {
                        ahead = look_ahead(turn.shard, input.remaining());
                    }
                    ahead -= 1;
                    self.command(input, turn)
                }
                Mode::Swallow(left) => self.swallow(input, left),
                Mode::Line => self.skip_line(input),
                Mode::Keys(reading) => self.more_keys(input, turn, reading),
            };
            if let Some(flow) = flow {
                return flow;
            }
            if turn.is_full() {
                break;
            }
        }
        if input.remaining().is_empty() { Flow::NeedInput } else { Flow::Flush }
    }

    /// The request at the front of the input; what ends the batch, if something does.
    fn command(&mut self, input: &mut Input<'_>, turn: &mut Turn<'_>) -> Option<Flow<Work>> {
        let bytes = input.remaining();
        let (request, text_len, line_len) = match parse(bytes) {
            Parsed::Request { request, text_len, line_len } => (request, text_len, line_len),
            Parsed::Incomplete => {
                input.want(0);
                return Some(Flow::NeedInput);
            }
            Parsed::LongGet { cas, head_len } => {
                input.consume(head_len);
                self.mode = Mode::Keys(Reading { cas, touch: None });
                return None;
            }
            Parsed::Invalid => return Some(Flow::Close),
        };
        if let Some(len) = request.data_len() {
            return self.store(input, turn, &request, line_len, len);
        }
        match self.step(turn, input, &request, (text_len, line_len)) {
            Step::Next => input.consume(line_len),
            Step::Keys(len) => {
                input.consume(len);
                return Some(Flow::Flush);
            }
            Step::Barrier => return Some(Flow::Flush),
            Step::End(flow) => {
                input.consume(line_len);
                return Some(flow);
            }
        }
        None
    }

    /// A command without a data block.
    fn step(
        &mut self,
        turn: &mut Turn<'_>,
        input: &Input<'_>,
        request: &Request<'_>,
        (text_len, line_len): (usize, usize),
    ) -> Step {
        match request {
            Request::Get(get) => {
                let reading = Reading { cas: get.cas, touch: get.touch };
                let mut keys = get.keys;
                if keys.any(|key| key.len() > KEY_MAX_BYTES) {
                    turn.say(BAD_LINE);
                    return Step::Next;
                }
                let Some(rest) = answer_keys(turn, reading, get.keys) else {
                    turn.say("END");
                    return Step::Next;
                };
                self.mode = Mode::Keys(reading);
                Step::Keys(text_len.saturating_sub(rest.rest().len()))
            }
            Request::Answer { text, swallow } => {
                turn.say(text);
                if *swallow > 0 {
                    self.mode = Mode::Swallow(*swallow);
                }
                Step::Next
            }
            Request::Quit => Step::End(Flow::Close),
            Request::Flush { .. } | Request::Stats(_) if turn.hop.is_some() => Step::Barrier,
            Request::Flush { delay, noreply } => self.flush(turn, *delay, *noreply),
            Request::Stats(words) => self.stats(turn, stats::wanted(*words)),
            request => {
                let frame = input.remaining().get(..line_len).unwrap_or_default();
                place(turn, input, request, frame, None);
                Step::Next
            }
        }
    }

    /// A command whose data block of `len` bytes follows its line.
    fn store(
        &mut self,
        input: &mut Input<'_>,
        turn: &mut Turn<'_>,
        request: &Request<'_>,
        line_len: usize,
        len: usize,
    ) -> Option<Flow<Work>> {
        let (key, flags, drops, noreply) = match request {
            Request::Store(Store { key, flags, verb, noreply, .. }) => {
                (*key, *flags, *verb == Verb::Set, *noreply)
            }
            Request::MetaStore { meta, .. } => (&*meta.key, meta.client_flags, true, false),
            _ => return None,
        };
        if turn.shard.memcached.is_too_large(key.len(), flags, len) {
            turn.shard.memcached.counters.store_too_large += 1;
            if drops {
                drop_item(turn, key);
            }
            turn.say(if noreply { "" } else { TOO_LARGE });
            input.consume(line_len);
            self.mode = Mode::Swallow(len + 2);
            return None;
        }
        let bytes = input.remaining();
        let total = line_len + len + 2;
        let Some(frame) = bytes.get(..total) else {
            input.want(if total >= WANT_MIN_BYTES { total } else { 0 });
            return Some(Flow::NeedInput);
        };
        if frame.ends_with(b"\r\n") {
            place(turn, input, request, frame, Some(line_len..line_len + len));
        } else {
            turn.shard.memcached.counters.set_cmds += 1;
            turn.say(if noreply { "" } else { "CLIENT_ERROR bad data chunk" });
        }
        input.consume(total);
        None
    }

    fn swallow(&mut self, input: &mut Input<'_>, left: usize) -> Option<Flow<Work>> {
        let here = left.min(input.remaining().len());
        input.consume(here);
        input.want(0);
        if here < left {
            self.mode = Mode::Swallow(left - here);
            return Some(Flow::NeedInput);
        }
        self.mode = Mode::Commands;
        None
    }

    fn skip_line(&mut self, input: &mut Input<'_>) -> Option<Flow<Work>> {
        let bytes = input.remaining();
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            input.consume(bytes.len());
            return Some(Flow::NeedInput);
        };
        input.consume(end + 1);
        self.mode = Mode::Commands;
        None
    }

    /// Goes on with the keys of a `get`.
    fn more_keys(
        &mut self,
        input: &mut Input<'_>,
        turn: &mut Turn<'_>,
        reading: Reading,
    ) -> Option<Flow<Work>> {
        let bytes = input.remaining();
        let (text, next) = rest_of_line(bytes);
        let mut keys = Words::new(text);
        let endless = next.is_none() && bytes.len() - text.len() > KEY_MAX_BYTES;
        if endless || keys.any(|key| key.len() > KEY_MAX_BYTES) {
            turn.say(BAD_LINE);
            self.mode = Mode::Line;
            return None;
        }
        if let Some(rest) = answer_keys(turn, reading, Words::new(text)) {
            input.consume(text.len() - rest.rest().len());
            return Some(Flow::Flush);
        }
        let Some(next) = next else {
            input.consume(text.len());
            return Some(Flow::NeedInput);
        };
        input.consume(next);
        turn.say("END");
        self.mode = Mode::Commands;
        None
    }

    fn flush(&mut self, turn: &mut Turn<'_>, delay: i32, noreply: bool) -> Step {
        turn.shard.memcached.counters.flush_cmds += 1;
        turn.shard.flush_items(delay, turn.now);
        let text = if noreply { "" } else { "OK" };
        match ask_others(turn.shard, || Ask::Flush(delay)) {
            None => {
                turn.say(text);
                Step::Next
            }
            Some(work) => {
                self.pending = Some(Pending::Flush { noreply });
                Step::End(Flow::Await(work))
            }
        }
    }

    fn stats(&mut self, turn: &mut Turn<'_>, wanted: Wanted) -> Step {
        let report = turn.shard.memcached_report();
        let work = match wanted {
            Wanted::General | Wanted::Items | Wanted::Slabs => {
                ask_others(turn.shard, || Ask::Report)
            }
            Wanted::Reset => {
                turn.shard.memcached.counters = super::Counters::default();
                ask_others(turn.shard, || Ask::Reset)
            }
            Wanted::Settings | Wanted::Text(_) => None,
        };
        match work {
            None => {
                let now = turn.now;
                turn.here(|cx| stats::tell(cx.out.inline_mut(), wanted, cx.shard, &report, now));
                Step::Next
            }
            Some(work) => {
                self.pending = Some(Pending::Stats(wanted, Box::new(report)));
                Step::End(Flow::Await(work))
            }
        }
    }

    /// Ends a batch: what was handed on is sent first.
    fn finish(&mut self, hop: Option<Box<Hop>>, flow: Flow<Work>, shard: &mut Shard) -> Flow<Work> {
        let Some(mut hop) = hop else { return flow };
        hop.close = matches!(flow, Flow::Close);
        let batches = hop.take_batches();
        let ask = |(target, batch)| (target, work::Request::Memcached(Ask::Batch(batch)));
        let requests: Vec<_> = batches.map(ask).collect();
        shard.stats.hop_requests += requests.len() as u64;
        self.pending = Some(Pending::Hop(hop));
        Flow::Await(Work::Exchange(requests))
    }
}

impl Session {
    /// Keeps replies until the log is durable as far as they need, if that is asked for.
    fn hold(
        &mut self,
        flow: Flow<Work>,
        start: Mark,
        out: &mut Output,
        shard: &Shard,
    ) -> Flow<Work> {
        self.needs = self.needs.max(shard.log_needs().unwrap_or(0));
        let end = out.mark();
        if end == start || !shard.is_behind(self.needs) {
            return flow;
        }
        let to = std::mem::take(&mut self.needs);
        let mut kept = Output::default();
        kept.append_range(out, start, end);
        out.truncate(start);
        let pending = self.pending.take();
        self.pending = Some(Pending::Held(Box::new(Held { out: kept, flow, pending })));
        Flow::Await(Work::Durable { to })
    }
}

/// The same request to every other shard; `None` when there is none.
fn ask_others(shard: &mut Shard, ask: impl Fn() -> Ask) -> Option<Work> {
    let others = (0..shard.count).filter(|&other| other != shard.index);
    let requests: Vec<_> = others.map(|other| (other, work::Request::Memcached(ask()))).collect();
    shard.stats.hop_requests += requests.len() as u64;
    (!requests.is_empty()).then_some(Work::Exchange(requests))
}

/// Runs a whole request with a key here, or hands it on.
fn place<'i>(
    turn: &mut Turn<'_>,
    input: &Input<'i>,
    request: &Request<'_>,
    frame: &'i [u8],
    data: Option<std::ops::Range<usize>>,
) {
    let target = request.key().map_or(turn.shard.index, |key| turn.owner(key));
    if target != turn.shard.index {
        return turn.hand_on(target, frame, input);
    }
    let data = data.and_then(|range| frame.get(range)).map(|bytes| Data { bytes, input });
    turn.here(|cx| run::request(cx, request, data));
}

/// Removes an item whose successor was too large.
fn drop_item(turn: &mut Turn<'_>, key: &[u8]) {
    let target = turn.owner(key);
    if target == turn.shard.index {
        let hash = turn.shard.store.hash(key);
        turn.here(|cx| {
            cx.remove(hash, key);
            cx.shard.log_item(hash, key, cx.now, true);
        });
    } else {
        turn.hand_on(target, &drop_frame(key), &Input::borrowed(b""));
    }
}

impl view::Session for Session {
    type Shard = Shard;
    type Work = Work;
    type Done = Done;

    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        shard.flush_due_items(now);
        let full = out.len() + MAX_OUTPUT_BYTES;
        shard.log_look();
        let start = out.mark();
        let mut turn = Turn { out, shard, now, hop: None, full };
        let flow = self.run(input, &mut turn);
        let hop = turn.hop.take();
        let flow = self.finish(hop, flow, shard);
        if shard.journal.is_some() { self.hold(flow, start, out, shard) } else { flow }
    }

    fn on_done(
        &mut self,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        if let (Some(Pending::Held(_)), Done::Durable { is_so }) = (&self.pending, &done) {
            return self.release(*is_so, out);
        }
        shard.log_look();
        let start = out.mark();
        let flow = self.resume(done, out, shard, now);
        if shard.journal.is_some() { self.hold(flow, start, out, shard) } else { flow }
    }
    fn foresee(&self, bytes: &[u8], shard: &mut Shard) {
        let Some(key) = likely_key(bytes) else { return };
        if shard.topology.owner_of(key) == shard.index {
            let (db, hash) = (shard.store.items_db(), shard.store.hash(key));
            shard.ahead.push(db, hash);
        }
    }

    fn foreseen(shard: &mut Shard) {
        shard.ahead.load(&shard.store);
    }

    fn on_close(&mut self, shard: &mut Shard) {
        shard.memcached.connections = shard.memcached.connections.saturating_sub(1);
    }
}

impl Session {
    /// Gives the replies that waited for the log: none of them when it failed.
    fn release(&mut self, is_durable: bool, out: &mut Output) -> Flow<Work> {
        let Some(Pending::Held(held)) = self.pending.take().filter(|_| is_durable) else {
            return Flow::Close;
        };
        out.append(&held.out);
        self.pending = held.pending;
        held.flow
    }

    /// Goes on with what was waited for.
    fn resume(
        &mut self,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        let Some(pending) = self.pending.take() else { return Flow::Flush };
        let Done::Exchange(responses) = done else { return Flow::Flush };
        if responses.iter().any(|response| matches!(response, Response::Error(_))) {
            reply::line(out.inline_mut(), GONE);
            return Flow::Close;
        }
        match pending {
            Pending::Hop(mut hop) => {
                let close = hop.close;
                hop.assemble(responses, out, &mut shard.spares);
                shard.keep_hop(hop);
                return if close { Flow::Close } else { Flow::Flush };
            }
            Pending::Flush { noreply: true } | Pending::Held(_) => {}
            Pending::Flush { noreply: false } => reply::line(out.inline_mut(), "OK"),
            Pending::Stats(wanted, mut report) => {
                for response in &responses {
                    if let Response::Memcached(other) = response {
                        report.merge(other);
                    }
                }
                stats::tell(out.inline_mut(), wanted, shard, &report, now);
            }
        }
        Flow::Flush
    }
}
