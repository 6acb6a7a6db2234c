//! A small server of publish and subscribe, in this process: RESP or NATS, good or bad in one way.
//!
//! Each subscriber has a queue without a bound and a thread that empties it, so a slow one is memory and holds
//! nobody up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use crate::fanout::PubSub;

/// What it does to one message, the hundredth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Lose,
    Repeat,
    /// It comes after the next one.
    Swap,
    Spoil,
    /// Closes the connection of its publisher.
    Leave,
    /// Lets go of subscribers whose queue is long.
    DropSlow,
}

const FAULTY: usize = 100;
/// Messages in a queue that is long.
const LONG: usize = 60;

struct Subscriber {
    name: String,
    queue: Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

struct Shared {
    protocol: PubSub,
    fault: Fault,
    subscribers: Mutex<Vec<Subscriber>>,
    count: AtomicUsize,
    kept: Mutex<Option<(String, Vec<u8>)>>,
}

pub(super) struct Bed {
    pub(super) addr: SocketAddr,
}

impl Bed {
    pub(super) fn start(protocol: PubSub, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            protocol,
            fault,
            subscribers: Mutex::default(),
            count: AtomicUsize::new(0),
            kept: Mutex::default(),
        });
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                spawn(move || {
                    // The client leaves when its run is over.
                    let _ = shared.serve(stream);
                });
            }
        });
        Self { addr }
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "a server of the test's own")]
    std::thread::spawn(run);
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut to = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        if self.protocol == PubSub::Nats {
            to.write_all(b"INFO {\"max_payload\":1048576}\r\n")?;
        }
        let mut line = String::new();
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => to.write_all(self.pong())?,
                ["CONNECT", ..] | ["PONG"] => {}
                ["SUB", name, _] => self.subscribe(name, &to)?,
                ["PUB", name, len] => {
                    let (name, len) = (name.to_owned(), len.parse().expect("a length"));
                    let body = body(&mut from, len)?;
                    self.publish(&name, body)?;
                }
                ["*2"] => {
                    assert_eq!(bulk(&mut from)?, b"SUBSCRIBE");
                    let name = String::from_utf8(bulk(&mut from)?).expect("text");
                    let len = name.len();
                    // Before it is confirmed: publishers begin when they have read that.
                    self.subscribe(&name, &to)?;
                    write!(to, "*3\r\n$9\r\nsubscribe\r\n${len}\r\n{name}\r\n:1\r\n")?;
                }
                ["*3"] => {
                    assert_eq!(bulk(&mut from)?, b"PUBLISH");
                    let name = String::from_utf8(bulk(&mut from)?).expect("text");
                    let message = bulk(&mut from)?;
                    self.publish(&name, message)?;
                    to.write_all(b":3\r\n")?;
                }
                _ => panic!("{line:?}"),
            }
        }
    }

    fn pong(&self) -> &'static [u8] {
        if self.protocol == PubSub::Nats { b"PONG\r\n" } else { b"+PONG\r\n" }
    }

    fn subscribe(&self, name: &str, to: &TcpStream) -> std::io::Result<()> {
        let (queue, messages) = channel::<Vec<u8>>();
        let mut to = to.try_clone()?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        spawn(move || {
            for message in messages {
                if to.write_all(&message).is_err() {
                    return;
                }
                left.fetch_sub(1, Ordering::Relaxed);
            }
            // Its queue is gone: so is it.
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        let subscriber = Subscriber { name: name.to_owned(), queue, waiting };
        self.subscribers.lock().expect("no panic").push(subscriber);
        Ok(())
    }

    fn publish(&self, name: &str, mut message: Vec<u8>) -> std::io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let faulty = number == FAULTY;
        if faulty && self.fault == Fault::Leave {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        if faulty && self.fault == Fault::Lose {
            return Ok(());
        }
        if faulty && self.fault == Fault::Swap {
            *self.kept.lock().expect("no panic") = Some((name.to_owned(), message));
            return Ok(());
        }
        if faulty && self.fault == Fault::Spoil {
            *message.last_mut().expect("a byte") ^= 1;
        }
        self.deliver(name, &message);
        if faulty && self.fault == Fault::Repeat {
            self.deliver(name, &message);
        }
        let kept = self.kept.lock().expect("no panic").take();
        if let Some((name, message)) = kept {
            self.deliver(&name, &message);
        }
        Ok(())
    }

    fn deliver(&self, name: &str, message: &[u8]) {
        let len = message.len();
        let head = match self.protocol {
            PubSub::Nats => format!("MSG {name} 1 {len}\r\n"),
            PubSub::Resp => {
                format!("*3\r\n$7\r\nmessage\r\n${}\r\n{name}\r\n${len}\r\n", name.len())
            }
        };
        let bytes = [head.as_bytes(), message, b"\r\n"].concat();
        let mut subscribers = self.subscribers.lock().expect("no panic");
        subscribers.retain(|subscriber| {
            if subscriber.name != name {
                return true;
            }
            let waiting = subscriber.waiting.fetch_add(1, Ordering::Relaxed);
            let is_dropped = self.fault == Fault::DropSlow && waiting > LONG;
            // A subscriber that left takes no more.
            !is_dropped && subscriber.queue.send(bytes.clone()).is_ok()
        });
    }
}

fn body(from: &mut impl Read, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len + 2];
    from.read_exact(&mut bytes)?;
    assert_eq!(bytes.split_off(len), b"\r\n");
    Ok(bytes)
}

fn bulk(from: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let len = line.strip_prefix('$').and_then(|len| len.trim().parse().ok()).expect("a bulk");
    body(from, len)
}
