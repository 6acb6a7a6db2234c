//! An in-process host of several shards: what the engine does, without sockets and threads.
//!
//! Messages between shards are delivered one at a time in an order chosen by a seed, first in
//! first out per pair of shards, so interleavings can be explored and repeated.

#![cfg_attr(not(test), expect(dead_code, reason = "fuzzers use some of it only"))]

use std::collections::VecDeque;

use crate::{
    ConnInfo, Done, Request, Response, Session, Shard, ShardConfig, Work, route::Topology,
};
use bytes::Bytes;
use view::{Flow, Input, Instant, Output, Session as _};

/// Unix milliseconds at the start of every test.
pub(super) const START_MS: u64 = 1_700_000_000_000;

/// The token of messages nobody waits for an answer to.
const NOBODY: u64 = u64::MAX;

enum State {
    Ready,
    Exchange { missing: usize, responses: Vec<Option<Response>> },
    Locked { generation: u64 },
    Sleeping { until_us: u64 },
    Job,
    Durable,
    Closed,
}

struct Connection {
    shard: usize,
    session: Session,
    input: Vec<u8>,
    out: Vec<u8>,
    state: State,
    /// A call is due although no bytes arrived.
    again: bool,
    peer_gone: bool,
    knows_gone: bool,
}

struct Message {
    from: usize,
    to: u16,
    token: u64,
    request: Request,
}

/// The host.
pub(super) struct Host {
    pub(super) shards: Vec<Shard>,
    pub(super) now: Instant,
    /// By how much each shard's clock is behind, and by how much it may be.
    pub(super) behind_ms: Vec<u64>,
    pub(super) behind_max_ms: usize,
    connections: Vec<Connection>,
    messages: VecDeque<Message>,
    random: u64,
    /// Give sessions owned input.
    pub(super) owned: bool,
    pub(super) wanted: usize,
}

impl Host {
    pub(super) fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub(super) fn with(shards: u16, edit: impl Fn(&mut ShardConfig)) -> Self {
        let now = Instant { mono_ns: 1_000_000_000, unix_us: START_MS * 1000 };
        let ports = (0..shards).map(|index| 6380 + index).collect();
        let topology = Topology::new("127.0.0.1", ports, 7);
        let library = crate::script::Library::default();
        let shard = |index| {
            let mut config = ShardConfig {
                index,
                topology: topology.clone(),
                seed: 9,
                library: library.clone(),
                ..ShardConfig::default()
            };
            edit(&mut config);
            Shard::new(config, now)
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            now,
            behind_ms: vec![0; usize::from(shards)],
            behind_max_ms: 0,
            connections: Vec::new(),
            messages: VecDeque::new(),
            random: 0x1234_5678,
            owned: false,
            wanted: 0,
        }
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    pub(super) fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % below.max(1)
    }

    pub(super) fn advance_ms(&mut self, ms: u64) {
        self.now.unix_us += ms * 1000;
        self.now.mono_ns += ms * 1_000_000;
        for shard in 0..self.behind_ms.len() {
            // No clock goes back.
            let most =
                u64::try_from(self.behind_max_ms).unwrap_or(0).min(self.behind_ms[shard] + ms);
            let most = usize::try_from(most).unwrap_or(0);
            self.behind_ms[shard] = if most > 0 { self.random(most + 1) as u64 } else { 0 };
        }
    }

    /// The time on a shard.
    pub(super) fn now_on(&self, shard: usize) -> Instant {
        let behind_ms = self.behind_ms[shard];
        Instant {
            mono_ns: self.now.mono_ns - behind_ms * 1_000_000,
            unix_us: self.now.unix_us - behind_ms * 1000,
        }
    }

    pub(super) fn connect(&mut self, shard: usize, shard_port: bool) -> usize {
        let id = self.connections.len() as u64 + 1;
        let local = if shard_port {
            format!("127.0.0.1:{}", 6380 + shard)
        } else {
            "127.0.0.1:6379".into()
        };
        let peer = format!("127.0.0.1:{}", 50_000 + id);
        let conn = id - 1;
        let info = ConnInfo { id, peer: &peer, local: &local, conn, fd: 8, shard_port };
        let session = Session::new(info, &mut self.shards[shard], self.now);
        self.connections.push(Connection {
            shard,
            session,
            input: Vec::new(),
            out: Vec::new(),
            state: State::Ready,
            again: false,
            peer_gone: false,
            knows_gone: false,
        });
        self.connections.len() - 1
    }

    /// Adds bytes to what a connection has received, without running anything.
    pub(super) fn feed(&mut self, conn: usize, bytes: &[u8]) {
        self.connections[conn].input.extend_from_slice(bytes);
        self.connections[conn].again = true;
    }

    /// Sends bytes, runs until nothing is left to do, and gives the replies.
    pub(super) fn send(&mut self, conn: usize, bytes: &[u8]) -> Vec<u8> {
        self.feed(conn, bytes);
        self.settle();
        self.take(conn)
    }

    /// Sends one command.
    pub(super) fn command(&mut self, conn: usize, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let reply = self.send(conn, &encode(&words));
        String::from_utf8_lossy(&reply).into_owned()
    }

    pub(super) fn take(&mut self, conn: usize) -> Vec<u8> {
        std::mem::take(&mut self.connections[conn].out)
    }

    pub(super) fn is_closed(&self, conn: usize) -> bool {
        matches!(self.connections[conn].state, State::Closed)
    }

    /// The peer is gone; what is under way is still driven to its end.
    pub(super) fn hang_up(&mut self, conn: usize) {
        self.connections[conn].peer_gone = true;
        self.connections[conn].input.clear();
        self.close_if_idle(conn);
        self.carry();
    }

    fn close_if_idle(&mut self, conn: usize) {
        let connection = &mut self.connections[conn];
        let busy = matches!(connection.state, State::Exchange { .. });
        if connection.peer_gone && busy && !connection.knows_gone {
            connection.knows_gone = true;
            connection.session.on_gone(&mut self.shards[connection.shard]);
            return self.carry();
        }
        let connection = &mut self.connections[conn];
        if connection.peer_gone && !busy && !matches!(connection.state, State::Closed) {
            connection.session.on_close(&mut self.shards[connection.shard]);
            connection.state = State::Closed;
        }
    }

    /// Runs until nothing is left to do.
    pub(super) fn settle(&mut self) {
        while self.step() {}
    }

    /// One random step: a connection's turn or a message's delivery. False: nothing to do.
    pub(super) fn step(&mut self) -> bool {
        if self.behind_max_ms > 0 {
            // Time passes on a shard while others wait for it.
            let shard = self.random(self.shards.len());
            let most = usize::try_from(self.behind_ms[shard]).unwrap_or(0);
            self.behind_ms[shard] = self.random(most + 1) as u64;
        }
        let ready: Vec<usize> =
            (0..self.connections.len()).filter(|&conn| self.is_ready(conn)).collect();
        let choices = ready.len() + usize::from(!self.messages.is_empty());
        if choices == 0 {
            return false;
        }
        let pick = self.random(choices);
        match ready.get(pick) {
            Some(&conn) => self.turn(conn),
            None => self.deliver(),
        }
        true
    }

    fn is_ready(&self, conn: usize) -> bool {
        let connection = &self.connections[conn];
        match connection.state {
            State::Ready => connection.again,
            State::Locked { generation } => {
                self.shards[connection.shard].locks_generation() != generation
            }
            State::Sleeping { until_us } => {
                self.now_on(self.connections[conn].shard).unix_us >= until_us
            }
            State::Durable => true,
            State::Exchange { missing, .. } => missing == 0,
            State::Job => true,
            State::Closed => false,
        }
    }

    fn turn(&mut self, conn: usize) {
        let now = self.now_on(self.connections[conn].shard);
        let connection = &mut self.connections[conn];
        let shard = &mut self.shards[connection.shard];
        let mut out = Output::default();
        connection.again = false;
        let flow = match std::mem::replace(&mut connection.state, State::Ready) {
            State::Ready => {
                let owner = Bytes::copy_from_slice(&connection.input);
                let mut input =
                    if self.owned { Input::owned(&owner) } else { Input::borrowed(&owner) };
                let flow = connection.session.on_bytes(&mut input, &mut out, shard, now);
                let consumed = input.consumed();
                self.wanted = self.wanted.max(input.wanted());
                connection.input.drain(..consumed);
                flow
            }
            State::Exchange { responses, .. } => {
                let responses = responses.into_iter().flatten().collect();
                connection.session.on_done(Done::Exchange(responses), &mut out, shard, now)
            }
            State::Locked { .. } => {
                connection.session.on_done(Done::Unlocked, &mut out, shard, now)
            }
            State::Sleeping { .. } => connection.session.on_done(Done::Slept, &mut out, shard, now),
            State::Job => {
                let response = Response::Error(b"ERR there is no disk".to_vec());
                connection.session.on_done(Done::Job(response), &mut out, shard, now)
            }
            State::Durable => {
                connection.session.on_done(Done::Durable { is_so: true }, &mut out, shard, now)
            }
            State::Closed => return,
        };
        connection.out.extend_from_slice(&out.to_vec());
        self.follow(conn, flow);
        self.carry_lines();
        self.carry_mail();
        self.close_killed();
        self.close_if_idle(conn);
        self.carry();
    }

    fn follow(&mut self, conn: usize, flow: Flow<Work>) {
        let connection = &mut self.connections[conn];
        match flow {
            Flow::NeedInput => {}
            Flow::Flush => connection.again = true,
            Flow::Close => {
                connection.session.on_close(&mut self.shards[connection.shard]);
                connection.state = State::Closed;
            }
            Flow::Await(Work::Locked) => {
                let generation = self.shards[connection.shard].locks_generation();
                connection.state = State::Locked { generation };
                connection.again = true;
            }
            // There is nobody to write a dump.
            Flow::Await(Work::Job(_)) => connection.state = State::Job,
            Flow::Await(Work::Durable { .. }) => connection.state = State::Durable,
            Flow::Await(Work::Sleep { us }) => {
                connection.state = State::Sleeping { until_us: self.now.unix_us + us };
            }
            Flow::Await(Work::Exchange(requests)) => {
                let missing = requests.len();
                connection.state =
                    State::Exchange { missing, responses: (0..missing).map(|_| None).collect() };
                let from = connection.shard;
                for (index, (to, request)) in requests.into_iter().enumerate() {
                    let token = (conn as u64) << 32 | index as u64;
                    self.messages.push_back(Message { from, to, token, request });
                }
            }
        }
    }

    /// Delivers a random message that no earlier one of the same pair of shards precedes.
    fn deliver(&mut self) {
        let heads: Vec<usize> = (0..self.messages.len())
            .filter(|&at| {
                let message = &self.messages[at];
                !self
                    .messages
                    .iter()
                    .take(at)
                    .any(|other| (other.from, other.to) == (message.from, message.to))
            })
            .collect();
        let at = heads[self.random(heads.len())];
        let message = self.messages.remove(at).expect("the index is in range");
        let mut done = Vec::new();
        let to = usize::from(message.to);
        let now = self.now_on(to);
        self.shards[to].serve(message.token, message.request, now, &mut done);
        self.carry_lines();
        self.carry_mail();
        for (token, response) in done {
            self.answer(token, response);
        }
        self.close_killed();
        self.carry();
    }

    /// Asks a shard something itself, and hands on what that releases.
    pub(super) fn ask(&mut self, shard: usize, request: Request) -> Option<Response> {
        let (mut done, mut own) = (Vec::new(), None);
        self.shards[shard].serve(NOBODY, request, self.now, &mut done);
        for (token, response) in done {
            match token {
                NOBODY => own = Some(response),
                token => self.answer(token, response),
            }
        }
        self.carry();
        own
    }

    /// Hands an answer to who asked.
    fn answer(&mut self, token: u64, response: Response) {
        if token == NOBODY {
            return;
        }
        let (conn, index) = ((token >> 32) as usize, token as u32 as usize);
        let State::Exchange { missing, responses } = &mut self.connections[conn].state else {
            panic!("an answer nobody waits for");
        };
        assert!(responses[index].is_none(), "answered twice");
        responses[index] = Some(response);
        *missing -= 1;
    }

    /// Carries what shards have for others.
    fn carry(&mut self) {
        for from in 0..self.shards.len() {
            for (token, response) in self.shards[from].take_served() {
                self.answer(token, response);
            }
            for (to, request) in self.shards[from].take_outbox() {
                self.messages.push_back(Message { from, to, token: NOBODY, request });
            }
        }
    }

    /// Time passes, and waits end.
    pub(super) fn wait_ms(&mut self, ms: u64) {
        self.advance_ms(ms);
        for shard in 0..self.shards.len() {
            let now = self.now_on(shard);
            self.shards[shard].time_out(now);
        }
        self.carry();
        self.settle();
    }

    /// Hands over what monitors are to read, and what shards post to each other.
    fn carry_lines(&mut self) {
        for from in 0..self.shards.len() {
            while let Some((to, request)) = self.shards[from].take_post() {
                self.messages.push_back(Message { from, to, token: NOBODY, request });
            }
            if self.shards[from].has_lines() {
                let (lines, names) = self.shards[from].take_lines();
                for name in names {
                    self.connections[name as usize].out.extend_from_slice(&lines);
                }
            }
        }
    }

    /// Hands over what waits in mailboxes, and what shards post to each other.
    pub(super) fn carry_mail(&mut self) {
        for from in 0..self.shards.len() {
            self.shards[from].tell_all();
            while let Some((to, request)) = self.shards[from].take_post() {
                self.messages.push_back(Message { from, to, token: NOBODY, request });
            }
            while let Some((slot, conn)) = self.shards[from].next_addressee() {
                let conn = conn as usize;
                let connection = &mut self.connections[conn];
                assert_eq!(connection.shard, from, "mail stays on its shard");
                let mut out = Output::default();
                if self.shards[from].deliver(slot, &mut out, self.now) {
                    connection.peer_gone = true;
                    self.close_if_idle(conn);
                    continue;
                }
                self.connections[conn].out.extend_from_slice(&out.to_vec());
            }
        }
    }

    fn close_killed(&mut self) {
        for shard in 0..self.shards.len() {
            for id in self.shards[shard].take_kills() {
                let conn = id as usize - 1;
                self.connections[conn].peer_gone = true;
                self.close_if_idle(conn);
            }
        }
    }
}

/// A command as clients send it.
pub(super) fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
