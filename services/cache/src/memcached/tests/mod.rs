//! Sessions of this protocol on one shard and on several, without sockets.

mod bounds;
mod shards;
mod transcripts;

use bytes::Bytes;
use view::{Flow, Input, Instant, Output, Session as _};

use super::Session;
use crate::{Done, Response, Shard, ShardConfig, Work, route::Topology};

/// Unix milliseconds at the start of every test: a whole second.
const START_MS: u64 = 1_700_000_000_000;

/// Some shards, and connections to them.
struct Host {
    shards: Vec<Shard>,
    now: Instant,
    connections: Vec<Connection>,
    /// Give sessions owned input.
    owned: bool,
    wanted: usize,
    /// Requests that went to other shards.
    asked: usize,
}

struct Connection {
    shard: usize,
    session: Session,
    input: Vec<u8>,
    closed: bool,
}

impl Host {
    fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    fn with(shards: u16, edit: impl Fn(&mut ShardConfig)) -> Self {
        let now = Instant { mono_ns: 1_000_000_000, unix_us: START_MS * 1000 };
        let topology =
            Topology::new("127.0.0.1", (0..shards).map(|index| 6380 + index).collect(), 7);
        let shard = |index| {
            let mut config = ShardConfig {
                index,
                topology: topology.clone(),
                seed: 9,
                ..ShardConfig::default()
            };
            edit(&mut config);
            Shard::new(config, now)
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            now,
            connections: Vec::new(),
            owned: false,
            wanted: 0,
            asked: 0,
        }
    }

    fn advance_s(&mut self, seconds: u64) {
        self.now.unix_us += seconds * 1_000_000;
        self.now.mono_ns += seconds * 1_000_000_000;
    }

    fn connect(&mut self, shard: usize) -> usize {
        let session = Session::new(&mut self.shards[shard]);
        self.connections.push(Connection { shard, session, input: Vec::new(), closed: false });
        self.connections.len() - 1
    }

    /// Sends bytes, runs until nothing is left to do, and gives the replies.
    fn send(&mut self, conn: usize, bytes: &[u8]) -> Vec<u8> {
        self.connections[conn].input.extend_from_slice(bytes);
        let mut replies = Vec::new();
        for _ in 0..100_000 {
            let connection = &mut self.connections[conn];
            if connection.closed {
                return replies;
            }
            let owner = Bytes::copy_from_slice(&connection.input);
            let mut input = if self.owned { Input::owned(&owner) } else { Input::borrowed(&owner) };
            let mut out = Output::default();
            let shard = &mut self.shards[connection.shard];
            let flow = connection.session.on_bytes(&mut input, &mut out, shard, self.now);
            let consumed = input.consumed();
            self.wanted = self.wanted.max(input.wanted());
            connection.input.drain(..consumed);
            let flow = self.settle(conn, flow, &mut out);
            replies.extend_from_slice(&out.to_vec());
            match flow {
                Flow::NeedInput => return replies,
                Flow::Close => self.connections[conn].closed = true,
                _ => {}
            }
        }
        panic!("a session does not come to rest");
    }

    fn settle(&mut self, conn: usize, mut flow: Flow<Work>, out: &mut Output) -> Flow<Work> {
        while let Flow::Await(Work::Exchange(requests)) = flow {
            let mut responses: Vec<Response> = Vec::new();
            for (to, request) in requests {
                let mut done = Vec::new();
                assert_ne!(usize::from(to), self.connections[conn].shard);
                self.shards[usize::from(to)].serve(0, request, self.now, &mut done);
                self.asked += 1;
                responses.push(done.pop().expect("answered at once").1);
            }
            let connection = &mut self.connections[conn];
            let shard = &mut self.shards[connection.shard];
            let done = Done::Exchange(responses);
            flow = connection.session.on_done(done, out, shard, self.now);
        }
        flow
    }

    fn text(&mut self, conn: usize, text: &str) -> String {
        String::from_utf8_lossy(&self.send(conn, text.as_bytes())).into_owned()
    }
}
