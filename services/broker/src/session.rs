//! One connection: frames in, requests to where they belong, answers in the order of the requests.
//!
//! Produce requests are taken as they come, as many as are waiting, while earlier ones wait for the disk; any other
//! request waits until those before it are answered, and holds back those behind it. Invariants: answers leave in
//! order; at most [`IN_FLIGHT_MAX`] produce requests are pending; a frame is looked at only when it is whole.
//! Next: `produce`, `fetch`, `api`.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::net::{ConnId, ConnInfo};
use kafka_protocol::messages::{ApiKey, RequestKind};
use view::{Flow, Input, Instant, Output};
use wire::kafka::api::{API_VERSIONS, Api, FETCH, PRODUCE};
use wire::kafka::frame::{self, LEN_BYTES, RequestHeader};
use wire::kafka::{Reader, fetch, produce, shape};

use crate::api::versions;
use crate::fetch::FetchJob;
use crate::partition::CommitId;
use crate::shard::Shard;
use crate::work::{Call, Done, Work};

/// Requests looked at before other connections get their turn.
const FRAMES_MAX: usize = 128;
/// Produce requests of a connection that wait for the disk.
const IN_FLIGHT_MAX: usize = 256;

/// A connection's state.
#[derive(Debug)]
pub struct Session {
    conn: ConnId,
    peer: String,
    in_flight: VecDeque<CommitId>,
    /// Waits until nothing is in flight.
    draining: bool,
}

enum Next {
    /// The frame was taken.
    Taken,
    /// It waits for those before it.
    Blocked,
    /// It is being worked on.
    Await(Work),
    Close,
}

impl Session {
    /// A new connection's.
    #[must_use]
    pub fn new(info: &ConnInfo, shard: &mut Shard) -> Self {
        shard.connections += 1;
        Self {
            conn: info.conn,
            peer: info.peer.to_string(),
            in_flight: VecDeque::new(),
            draining: false,
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
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::read(&mut reader) else { return Next::Close };
        let Some(api) = Api::find(header.key) else { return Next::Close };
        if header.key == PRODUCE && header.version >= produce::OLDEST && api.has(header.version) {
            return self.produce(&header, reader, shard, now);
        }
        if !self.in_flight.is_empty() {
            return Next::Blocked;
        }
        if header.key == API_VERSIONS {
            versions::answer(out.inline_mut(), &header, api);
            return Next::Taken;
        }
        if !api.has(header.version) || header.key == PRODUCE {
            return Next::Close;
        }
        if header.key == FETCH {
            let Ok(request) = fetch::Request::read(reader, header.version) else {
                return Next::Close;
            };
            return Next::Await(Work::Fetch(Box::new(FetchJob::new(&header, &request))));
        }
        if shape::check(api, header.version, reader.rest()).is_err() {
            return Next::Close;
        }
        let Ok(key) = ApiKey::try_from(header.key) else { return Next::Close };
        let mut body = Bytes::copy_from_slice(reader.rest());
        let Ok(request) = RequestKind::decode(key, &mut body, header.version) else {
            return Next::Close;
        };
        Next::Await(Work::Call(Box::new(Call {
            conn: self.conn,
            key: header.key,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default().to_owned(),
            peer: self.peer.clone(),
            request,
        })))
    }

    fn produce(
        &mut self,
        header: &RequestHeader<'_>,
        reader: Reader<'_>,
        shard: &mut Shard,
        now: Instant,
    ) -> Next {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Next::Blocked;
        }
        let Ok(request) = produce::Request::read(reader, header.version) else {
            return Next::Close;
        };
        let number = shard.produce(self.conn, header, &request, now);
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
            let rest = input.remaining();
            let len = match frame::frame_len(rest, shard.config.request_max_bytes) {
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
                Next::Close => {
                    shard.stats.malformed += 1;
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
        _shard: &mut Shard,
        _now: Instant,
    ) -> Flow<Work> {
        match done {
            Done::Reply(bytes) => out.push(bytes.into()),
            Done::Ready | Done::Sent => {}
        }
        Flow::Flush
    }

    fn on_close(&mut self, shard: &mut Shard) {
        shard.connections -= 1;
        for number in self.in_flight.drain(..) {
            shard.forget(number);
        }
    }
}

impl Session {
    /// Sends what is complete already, then does what was to be done.
    fn settle(&mut self, shard: &mut Shard, out: &mut Output, flow: Flow<Work>) -> Flow<Work> {
        match self.flush(shard, out) {
            Flushed::Close => Flow::Close,
            Flushed::Open | Flushed::Drained => flow,
        }
    }
}
