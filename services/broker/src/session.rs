//! One connection: frames in, requests to where they belong, answers in the order of the requests.
//!
//! Produce requests are taken as they come, as many as are waiting, while earlier ones wait for the disk; any other
//! request waits until those before it are answered, and holds back those behind it. Invariants: answers leave in
//! order; at most [`IN_FLIGHT_MAX`] produce requests are pending; a frame is looked at only when it is whole.
//! Next: `produce`, `fetch`, `api`.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::net::{Cold, ConnId, ConnInfo};
use kafka_protocol::messages::{ApiKey, RequestKind};
use view::{Flow, Input, Instant, Output};
use wire::kafka::api::{API_VERSIONS, Api, FETCH, PRODUCE};
use wire::kafka::frame::{self, LEN_BYTES, RequestHeader};
use wire::kafka::{Malformed, Reader, fetch, produce, shape};

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
    tls: bool,
    in_flight: VecDeque<CommitId>,
    /// Waits until nothing is in flight.
    draining: bool,
    /// Number and version of the last request.
    last: (i16, i16),
    /// What was read from the disk for the last answer.
    behind: Vec<Cold>,
}

enum Next {
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
enum Refused {
    Header(Malformed),
    Key,
    Version,
    Body(Malformed),
    /// The decoder behind the shapes does not take it.
    Decoder,
}

impl Session {
    /// A new connection's.
    #[must_use]
    pub fn new(info: &ConnInfo, shard: &mut Shard) -> Self {
        shard.connections += 1;
        Self {
            conn: info.conn,
            peer: info.peer.to_string(),
            tls: info.tls,
            in_flight: VecDeque::new(),
            behind: Vec::new(),
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
        let mut reader = Reader::new(frame);
        let header = match RequestHeader::read(&mut reader) {
            Ok(header) => header,
            Err(malformed) => return Next::Refused(Refused::Header(malformed)),
        };
        self.last = (header.key, header.version);
        let Some(api) = Api::find(header.key) else { return Next::Refused(Refused::Key) };
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
            return Next::Refused(Refused::Version);
        }
        if header.key == FETCH {
            return match fetch::Request::read(reader, header.version) {
                Ok(request) => {
                    let behind = std::mem::take(&mut self.behind);
                    Next::Await(Work::Fetch(Box::new(FetchJob::new(&header, &request, behind))))
                }
                Err(malformed) => Next::Refused(Refused::Body(malformed)),
            };
        }
        if let Err(malformed) = shape::check(api, header.version, reader.rest()) {
            return Next::Refused(Refused::Body(malformed));
        }
        let Ok(key) = ApiKey::try_from(header.key) else { return Next::Refused(Refused::Key) };
        let mut body = Bytes::copy_from_slice(reader.rest());
        let Ok(request) = RequestKind::decode(key, &mut body, api.decoded_as(header.version))
        else {
            return Next::Refused(Refused::Decoder);
        };
        Next::Await(Work::Call(Box::new(Call {
            conn: self.conn,
            key: header.key,
            version: header.version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.unwrap_or_default().to_owned(),
            peer: self.peer.clone(),
            tls: self.tls,
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
        let request = match produce::Request::read(reader, header.version) {
            Ok(request) => request,
            Err(malformed) => return Next::Refused(Refused::Body(malformed)),
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
        _shard: &mut Shard,
        _now: Instant,
    ) -> Flow<Work> {
        match done {
            Done::Reply(bytes) => out.push(bytes.into()),
            Done::Ready => {}
            Done::Sent(behind) => self.behind = behind,
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

    /// Sends what is complete already, then does what was to be done.
    fn settle(&mut self, shard: &mut Shard, out: &mut Output, flow: Flow<Work>) -> Flow<Work> {
        match self.flush(shard, out) {
            Flushed::Close => Flow::Close,
            Flushed::Open | Flushed::Drained => flow,
        }
    }
}
