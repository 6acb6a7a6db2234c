//! Encrypted connections of a server, on a ring and in worlds that cut and delay bytes by seed.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use view::{Flow, Input, Instant, Output, Session};

use super::super::Tls;
use super::{Client, World};
use crate::buf::DirectBuf;
use crate::driver::OpenOptions;
use crate::driver::sim::{Faults, World as Net};
use crate::fs::File;
use crate::fs::testing::{in_world, on_ring};
use crate::net::stream::Stream;
use crate::net::{ConnId, ConnInfo, Part, Server, ServerConfig, Service, Via};
use crate::shard::ShardCx;

/// Length of the file, and of the longest frames.
const FILE_BYTES: usize = 300_000;
const LEN_BYTES: usize = 4;

/// Answers frames of a length and content with their content; an empty one with the file; one of a `!` with a
/// goodbye.
struct Echo {
    file: Rc<File>,
}

struct Frames;

impl Session for Frames {
    type Shard = ();
    type Work = ();
    type Done = ();

    fn on_bytes(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Output,
        _shard: &mut (),
        _now: Instant,
    ) -> Flow<()> {
        loop {
            let Some((head, rest)) = input.remaining().split_first_chunk::<LEN_BYTES>() else {
                input.want(0);
                return Flow::NeedInput;
            };
            let len = u32::from_be_bytes(*head) as usize;
            let Some(frame) = rest.get(..len) else {
                input.want(LEN_BYTES + len);
                return Flow::NeedInput;
            };
            let content = input.slice(frame);
            input.consume(LEN_BYTES + len);
            match &content[..] {
                [] => return Flow::Await(()),
                b"!" => return Flow::Close,
                _ => out.push(content),
            }
        }
    }

    fn on_done(
        &mut self,
        _done: (),
        _out: &mut Output,
        _shard: &mut (),
        _now: Instant,
    ) -> Flow<()> {
        Flow::Flush
    }
}

impl Service for Echo {
    type Session = Frames;
    type Shard = ();
    type Work = ();
    type Done = ();

    fn open(&self, info: ConnInfo, _shard: &mut ()) -> Result<Frames, Vec<u8>> {
        assert!(info.tls);
        Ok(Frames)
    }

    fn perform(
        &self,
        server: &Rc<Server<Self>>,
        conn: ConnId,
        _work: (),
    ) -> impl Future<Output = ()> + 'static {
        let (server, file) = (Rc::clone(server), Rc::clone(&self.file));
        async move {
            let parts = vec![
                Part::Bytes(Output::with_text(b"<")),
                Part::File { file, offset: 1, len: FILE_BYTES as u64 - 1 },
                Part::Bytes(Output::with_text(b">")),
            ];
            let _ = server.transfer(conn, parts).await;
        }
    }

    fn on_turn(&self, _server: &Rc<Server<Self>>) -> bool {
        false
    }
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 24) as u8
}

fn frame(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("a frame");
    [&len.to_be_bytes(), content].concat()
}

async fn serve(cx: &ShardCx, dir: &Path, addr: SocketAddr, tls: &Arc<dyn Tls>) -> Rc<Server<Echo>> {
    serve_hurried(cx, dir, addr, tls, 10_000_000_000).await
}

/// A server that gives a handshake so long.
async fn serve_hurried(
    cx: &ShardCx,
    dir: &Path,
    addr: SocketAddr,
    tls: &Arc<dyn Tls>,
    handshake_ns: u64,
) -> Rc<Server<Echo>> {
    let new = OpenOptions { write: true, create: true, direct: false, directory: false };
    let file = File::open(cx, &dir.join("f"), &new).expect("a free name");
    let mut buf = DirectBuf::zeroed(FILE_BYTES);
    for (at, byte) in buf.iter_mut().enumerate() {
        *byte = pattern(at);
    }
    file.write_at(buf, FILE_BYTES, 0).await.expect("room");
    let echo = Echo { file: Rc::new(file) };
    let config = ServerConfig { handshake_ns, ..ServerConfig::default() };
    let server = Server::new(cx, echo, Rc::new(RefCell::new(())), config);
    server.listen_tls(addr, Via::Shard, tls).expect("a free port");
    server
}

/// The client's end of a connection of the test. Kept until the test ends: a stream that is dropped shuts its descriptor
/// a little later, when that may be another connection's.
struct Peer {
    stream: Stream,
    client: Client,
}

impl Peer {
    async fn connect(cx: &ShardCx, addr: SocketAddr, client: Client) -> Self {
        Self { stream: Stream::connect(cx, addr).await.expect("somebody listens"), client }
    }

    async fn flush(&mut self) {
        let records = self.client.records();
        if !records.is_empty() {
            self.stream.send(Output::with_text(&records)).await.expect("a peer");
        }
    }

    /// What the server says: `len` bytes, or fewer at its end.
    async fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        self.flush().await;
        while heard.len() < len {
            let Ok(Some(lease)) = self.stream.receive().await else { break };
            heard.extend(self.client.hear(&lease).expect("a good server"));
            drop(lease);
            self.flush().await;
        }
        heard
    }

    async fn expect(&mut self, expected: &[u8]) {
        let heard = self.hear(expected.len()).await;
        assert!(heard == expected, "{} bytes of {}", heard.len(), expected.len());
    }

    fn heard_goodbye(&mut self) -> bool {
        self.client.0.process_new_packets().expect("a good server").peer_has_closed()
    }
}

/// Runs a test on a ring, and in rough worlds.
fn on_both<F: Future<Output = ()> + 'static>(
    name: &str,
    test: impl Fn(ShardCx, PathBuf, SocketAddr, Rc<World>) -> F,
) {
    let world = Rc::new(World::new(name));
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = free.local_addr().expect("bound");
    drop(free);
    on_ring(|cx| test(cx, world.dir.path().to_owned(), addr, Rc::clone(&world)));
    for seed in 0..20 {
        let net = Net::new(seed, Faults { reset: 0.0, ..Faults::rough() });
        let ended = in_world(&net, u64::MAX, |cx| {
            cx.driver().make_dir(Path::new("/d")).expect("room");
            test(cx, PathBuf::from("/d"), addr, Rc::clone(&world))
        });
        assert!(ended);
    }
}

#[test]
fn frames_and_files_arrive_in_order() {
    on_both("server", |cx, dir, addr, world| async move {
        let server = serve(&cx, &dir, addr, &world.tls()).await;
        let long: Vec<u8> = (0..FILE_BYTES).map(pattern).collect();
        let file = [b"<", &long[1..], b">"].concat();
        let mut peers = Vec::new();
        for version in [&TLS12, &TLS13] {
            let mut peer = Peer::connect(&cx, addr, world.client(version)).await;
            for content in [b"one", &long[..], b"two", b"", &long[..40_000], b""] {
                peer.client.say(&frame(content));
            }
            peer.expect(&[b"one", &long[..], b"two", &file, &long[..40_000], &file].concat()).await;
            peer.client.say(&frame(b"!"));
            assert!(peer.hear(1).await.is_empty());
            assert!(peer.heard_goodbye(), "the end is said");
            peers.push(peer);
        }
        let stats = server.stats();
        assert_eq!(stats.handshakes, 2);
        assert_eq!((stats.tls_errors, stats.sent_file_bytes), (0, 0));
        assert_eq!(stats.sent_copied_bytes, 4 * (FILE_BYTES as u64 - 1));
    });
}

#[test]
fn whoever_says_goodbye_gets_the_answers_first() {
    on_both("half", |cx, dir, addr, world| async move {
        let server = serve(&cx, &dir, addr, &world.tls()).await;
        let mut peers = Vec::new();
        for shuts in [false, true] {
            let mut peer = Peer::connect(&cx, addr, world.client(&TLS13)).await;
            let long = vec![7; FILE_BYTES];
            peer.client.say(&frame(b"hello"));
            peer.expect(b"hello").await;
            peer.client.say(&[frame(&long), frame(b""), frame(b"last")].concat());
            peer.client.0.send_close_notify();
            peer.flush().await;
            if shuts {
                peer.stream.shutdown_write().await;
            }
            let heard = peer.hear(usize::MAX).await;
            assert_eq!(heard.len(), FILE_BYTES + FILE_BYTES + 1 + 4);
            assert!(heard.ends_with(b"last"));
            assert!(peer.heard_goodbye());
            peers.push(peer);
        }
        while server.live() > 0 {
            cx.sleep(1_000_000).await;
        }
        assert_eq!(server.stats().tls_errors, 0);
    });
}

#[test]
fn many_handshakes_take_turns() {
    on_both("turns", |cx, dir, addr, world| async move {
        let server = serve(&cx, &dir, addr, &world.tls()).await;
        let mut peers = Vec::new();
        for number in 0..24_u8 {
            let mut peer = Peer::connect(&cx, addr, world.client(&TLS13)).await;
            peer.client.say(&frame(&[number]));
            peer.flush().await;
            peers.push(peer);
        }
        for (number, peer) in (0..).zip(&mut peers) {
            peer.expect(&[number]).await;
        }
        assert_eq!(server.stats().handshakes, 24);
    });
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    on_both("late", |cx, dir, addr, world| async move {
        let server = serve_hurried(&cx, &dir, addr, &world.tls(), 50_000_000).await;
        let mut client = world.client(&TLS13);
        let greeting = client.records();
        let mut streams = Vec::new();
        for sent in [&greeting[..0], &greeting[..5], &greeting[..]] {
            let stream = Stream::connect(&cx, addr).await.expect("somebody listens");
            if !sent.is_empty() {
                stream.send(Output::with_text(sent)).await.expect("a peer");
            }
            // Ends, cleanly or not.
            while let Ok(Some(_)) = stream.receive().await {}
            streams.push(stream);
        }
        while server.live() > 0 {
            cx.sleep(1_000_000).await;
        }
        assert_eq!(server.stats().tls_errors, 3);
    });
}

#[test]
fn wrong_and_cut_streams_end_their_connection_alone() {
    on_both("wrong", |cx, dir, addr, world| async move {
        let server = serve(&cx, &dir, addr, &world.tls()).await;
        let mut good = Peer::connect(&cx, addr, world.client(&TLS13)).await;
        good.client.say(&frame(b"one"));
        good.expect(b"one").await;
        // Plain text where records should be: an alert, then the end.
        let stream = Stream::connect(&cx, addr).await.expect("somebody listens");
        stream.send(Output::with_text(b"GET / HTTP/1.1\r\n\r\n")).await.expect("a peer");
        let alert = stream.receive().await.expect("no reset").expect("an alert");
        assert_eq!(alert[0], 21);
        drop(alert);
        while let Ok(Some(_)) = stream.receive().await {}
        stream.shutdown_write().await;
        // A stream that ends within a record, after a frame that is whole.
        let mut peer = Peer::connect(&cx, addr, world.client(&TLS13)).await;
        peer.client.say(&frame(b"whole"));
        peer.expect(b"whole").await;
        peer.client.say(&frame(b"cut"));
        let records = peer.client.records();
        let cut = Output::with_text(&records[..records.len() - 1]);
        peer.stream.send(cut).await.expect("a peer");
        peer.stream.shutdown_write().await;
        assert!(peer.hear(1).await.is_empty());
        good.client.say(&frame(b"two"));
        good.expect(b"two").await;
        good.stream.shutdown_write().await;
        while server.live() > 0 {
            cx.sleep(1_000_000).await;
        }
        assert_eq!(server.stats().tls_errors, 1);
    });
}
