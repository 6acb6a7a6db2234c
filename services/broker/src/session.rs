//! One connection: frames in, requests to where they belong, answers in the order of the requests.
//!
//! Produce requests are taken as they come, as many as are waiting, while earlier ones wait for the disk; any other
//! request waits until those before it are answered, and holds back those behind it. Invariants: answers leave in
//! order; at most `in_flight_max` produce requests are pending; a frame is looked at only when it is whole. Where clients
//! log in or are limited a `guard` looks at each frame first. Next: `produce`, `fetch`, `api`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::net::{ConnId, ConnInfo};
use kafka_protocol::messages::ApiKey;
use view::{Flow, Input, Instant, Output};
use wire::kafka::api::{API_VERSIONS, Api, FETCH, PRODUCE};
use wire::kafka::frame::{self, LEN_BYTES, RequestHeader};
use wire::kafka::{Malformed, Reader, fetch, produce, shape};

use crate::api::{by_id, versions};
use crate::fetch::FetchJob;
use crate::guard::{self, Guard};
use crate::partition::CommitId;
use crate::quota::Use;
use crate::read_in::ReadIn;
use crate::shard::Shard;
use crate::work::{Call, Done, Work};

/// Requests looked at before other connections get their turn.
const FRAMES_MAX: usize = 128;

/// A connection's state.
#[derive(Debug)]
pub struct Session {
    conn: ConnId,
    peer: String,
    tls: bool,
    in_flight: VecDeque<CommitId>,
    /// Waits until nothing is in flight.
    draining: bool,
    guard: Option<Box<Guard>>,
    /// Longest request, which is short before a log-in.
    frame_max_bytes: usize,
    /// Number and version of the last request.
    last: (i16, i16),
    read_in: Rc<RefCell<ReadIn>>,
}

/// What came of a frame.
pub(crate) enum Next {
    /// The frame was taken.
    Taken,
    /// It waits for those before it.
    Blocked,
    /// It is being worked on.
    Await(Work),
    /// It is no request that can be answered.
    Refused(Refused),
}

/// Why a request ends its connection: the protocol has no other answer to what it does not know.
#[derive(Debug)]
pub(crate) enum Refused {
    Header(Malformed),
    Key,
    Version,
    NotLoggedIn,
    Expired,
    Body(Malformed),
    /// The decoder behind the shapes does not take it.
    Decoder,
}

impl Session {
    /// A new connection's.
    #[must_use]
    pub fn new(info: &ConnInfo, shard: &mut Shard) -> Self {
        shard.connections += 1;
        let guard = Guard::new(shard);
        let longest = shard.config.request_max_bytes;
        let is_open = guard.as_ref().is_none_or(|guard| guard.is_open());
        let frame_max_bytes = if is_open { longest } else { longest.min(guard::LOGIN_MAX_BYTES) };
        Self {
            guard,
            frame_max_bytes,
            conn: info.conn,
            peer: info.peer.to_string(),
            tls: info.tls,
            in_flight: VecDeque::new(),
            read_in: Rc::default(),
            draining: false,
            last: (-1, -1),
        }
    }

    /// Sends the answers that are complete; whether those that were waited for are all sent.
    pub(crate) fn flush(&mut self, shard: &mut Shard, out: &mut Output) -> Flushed {
        while let Some(&number) = self.in_flight.front() {
            if !shard.is_complete(number) {
                break;
            }
            self.in_flight.pop_front();
            if !shard.answer_produce(number, out.inline_mut()) {
                return Flushed::Close;
            }
        }
        if self.in_flight.is_empty() && std::mem::take(&mut self.draining) {
            return Flushed::Drained;
        }
        Flushed::Open
    }

    fn frame(&mut self, frame: &[u8], out: &mut Output, shard: &mut Shard, now: Instant) -> Next {
        if let Some(guard) = &mut self.guard {
            if let Some(&[a, b, c, d]) = frame.first_chunk() {
                self.last = (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
            }
            let idle = self.in_flight.is_empty();
            if let Some(next) = guard.admit(frame, idle, out.inline_mut(), shard, now) {
                if guard.is_open() {
                    self.frame_max_bytes = shard.config.request_max_bytes;
                }
                return next;
            }
        }
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::read(&mut reader) {
            Ok(header) => header,
            Err(malformed) => return Next::Refused(Refused::Header(malformed)),
        };
        self.last = (header.key, header.version);
        let Some(api) = Api::find(header.key) else { return Next::Refused(Refused::Key) };
        if header.key == PRODUCE && header.version >= produce::OLDEST && api.has(header.version) {
            return self.produce(&header, reader, frame.len(), shard, now);
        }
        if !self.in_flight.is_empty() {
            return Next::Blocked;
        }
        if header.key == API_VERSIONS {
            versions::answer(out.inline_mut(), &header, api, shard.logins.is_some());
            return Next::Taken;
        }
        if !api.has(header.version) || header.key == PRODUCE {
            return Next::Refused(Refused::Version);
        }
        if api.is_login() {
            guard::refuse_login(out.inline_mut(), &header);
            return Next::Taken;
        }
        if header.key == FETCH {
            return match fetch::Request::read(reader, header.version) {
                Ok(request) => {
                    let read_in = Rc::clone(&self.read_in);
                    let mut job = Box::new(FetchJob::new(&header, &request, read_in));
                    job.throttle_ms = self.record(&[(Use::Requests, 1)], &header, shard, now);
                    job.limit = self.guard.as_ref().and_then(|guard| guard.fetch_limit());
                    Next::Await(Work::Fetch(job))
                }
                Err(malformed) => Next::Refused(Refused::Body(malformed)),
            };
        }
        self.call(api, &header, reader, shard, now)
    }

    /// A request off the hot path.
    fn call(
        &mut self,
        api: &Api,
        header: &RequestHeader<'_>,
        reader: Reader<'_>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        if let Err(malformed) = shape::check(api, header.version, reader.rest()) {
            return Next::Refused(Refused::Body(malformed));
        }
        let Ok(key) = ApiKey::try_from(header.key) else { return Next::Refused(Refused::Key) };
        let form = api.decoded_as(header.version);
        let Some(request) = by_id::decode(key, header.version, form, reader.rest()) else {
            return Next::Refused(Refused::Decoder);
        };
        Next::Await(Work::Call(Box::new(Call {
            conn: self.conn,
            key: header.key,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default().to_owned(),
            peer: self.peer.clone(),
            throttle_ms: self.record(&[(Use::Requests, 1)], header, shard, now),
            tls: self.tls,
            request,
        })))
    }

    /// Notes what a request uses; for how long the client is left alone.
    fn record(
        &mut self,
        uses: &[(Use, usize)],
        header: &RequestHeader<'_>,
        shard: &mut Shard,
        now: Instant,
    ) -> u32 {
        let Some(guard) = &mut self.guard else { return 0 };
        guard.record(uses, header.client_id.unwrap_or_default(), shard, now)
    }

    fn produce(
        &mut self,
        header: &RequestHeader<'_>,
        reader: Reader<'_>,
        len: usize,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        if self.in_flight.len() >= shard.config.in_flight_max {
            return Next::Blocked;
        }
        let request = match produce::Request::read(reader, header.version) {
            Ok(request) => request,
            Err(malformed) => return Next::Refused(Refused::Body(malformed)),
        };
        let throttle_ms =
            self.record(&[(Use::Produce, len), (Use::Requests, 1)], header, shard, now);
        let number = shard.produce(self.conn, header, &request, throttle_ms, now);
        self.in_flight.push_back(number);
        Next::Taken
    }
}

/// What came of [`Session::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing more.
    Open,
    /// The session waited for this.
    Drained,
    /// The connection is to be closed.
    Close,
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
        if !shard.loaded {
            return Flow::Await(Work::Load);
        }
        for _ in 0..FRAMES_MAX {
            if let Some(until_ns) = self.guard.as_ref().and_then(|guard| guard.muted(now)) {
                return self.settle(shard, out, Flow::Await(Work::Mute(until_ns)));
            }
            let rest = input.remaining();
            let len = match frame::frame_len(rest, self.frame_max_bytes) {
                Ok(Some(len)) => len,
                Ok(None) => {
                    input.want(0);
                    return self.settle(shard, out, Flow::NeedInput);
                }
                Err(_) => {
                    shard.stats.malformed += 1;
                    return Flow::Close;
                }
            };
            let Some(frame) = rest.get(LEN_BYTES..len) else {
                input.want(len);
                return self.settle(shard, out, Flow::NeedInput);
            };
            match self.frame(frame, out, shard, now) {
                Next::Taken => {
                    shard.stats.requests += 1;
                    input.consume(len);
                }
                Next::Blocked => {
                    return match self.settle(shard, out, Flow::NeedInput) {
                        // Those before it were complete after all.
                        Flow::NeedInput if self.in_flight.is_empty() => Flow::Flush,
                        Flow::NeedInput => {
                            self.draining = true;
                            Flow::Await(Work::Drain)
                        }
                        flow => flow,
                    };
                }
                Next::Await(work) => {
                    shard.stats.requests += 1;
                    input.consume(len);
                    return Flow::Await(work);
                }
                Next::Refused(why) => {
                    shard.stats.malformed += 1;
                    self.report(shard, now, &why);
                    return Flow::Close;
                }
            }
        }
        self.settle(shard, out, Flow::Flush)
    }

    fn on_done(
        &mut self,
        done: Done,
        out: &mut Output,
        shard: &mut Shard,
        now: Instant,
    ) -> Flow<Work> {
        match (done, &mut self.guard) {
            (Done::Reply(bytes), _) => out.push(bytes.into()),
            (Done::Muted(until_ns), Some(guard)) => guard.mute_until(until_ns),
            (Done::Proven(right), Some(guard)) => {
                let next = guard.proven(right, out.inline_mut(), shard, now);
                if guard.is_open() {
                    self.frame_max_bytes = shard.config.request_max_bytes;
                }
                match next {
                    Next::Await(work) => return Flow::Await(work),
                    Next::Taken | Next::Blocked => {}
                    Next::Refused(_) => return Flow::Close,
                }
            }
            (Done::Denied, guard) => {
                let Some(answer) = guard.as_mut().and_then(|guard| guard.denial()) else {
                    return Flow::Close;
                };
                self.report_denial(shard, now);
                out.push(answer.into());
                return Flow::Await(Work::Deny(now.mono_ns + guard::CLOSE_DELAY_NS));
            }
            (Done::Ready | Done::Muted(_) | Done::Proven(_), _) => {}
        }
        Flow::Flush
    }

    fn owes_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn on_close(&mut self, shard: &mut Shard) {
        shard.connections -= 1;
        for number in self.in_flight.drain(..) {
            shard.forget(number);
        }
    }
}

impl Session {
    /// Says why a connection is closed: without, its client's log is all there is to go by.
    fn report(&self, shard: &Shard, now: Instant, why: &Refused) {
        let (key, version) = self.last;
        let name = Api::find(key).map_or("unknown", |api| api.name);
        let why = match why {
            Refused::Header(malformed) | Refused::Body(malformed) => malformed.to_string(),
            Refused::Key => "this request is not served".to_owned(),
            Refused::Version => "this version is not served".to_owned(),
            Refused::NotLoggedIn => "the client has to log in first".to_owned(),
            Refused::Expired => "the log-in has expired and was not renewed".to_owned(),
            Refused::Decoder => "a field has a value it must not have".to_owned(),
        };
        shard.cx.log().info(
            "broker",
            now,
            "request refused",
            &[
                ("peer", &self.peer),
                ("request", &name),
                ("key", &key),
                ("version", &version),
                ("why", &why),
            ],
        );
    }

    /// Says that somebody could not log in, for whoever looks for attacks.
    fn report_denial(&self, shard: &Shard, now: Instant) {
        shard.cx.log().info("broker", now, "log-in failed", &[("peer", &self.peer)]);
    }

    /// Sends what is complete already, then does what was to be done.
    fn settle(&mut self, shard: &mut Shard, out: &mut Output, flow: Flow<Work>) -> Flow<Work> {
        match self.flush(shard, out) {
            Flushed::Close => Flow::Close,
            Flushed::Open | Flushed::Drained => flow,
        }
    }
}
