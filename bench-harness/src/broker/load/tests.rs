//! The load against a server that does what a test wants: one byte a batch, answered with one byte.

use std::net::TcpListener;
use std::thread;

use super::*;

struct Byte {
    acknowledged: u64,
    batch: u64,
}

impl Producer for Byte {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.push(b'x');
    }

    fn on_bytes(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<()> {
        self.acknowledged += bytes.len() as u64 * self.batch;
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// A server that answers each byte after `delay_ns`, one at a time.
#[expect(clippy::disallowed_methods, reason = "the other end of a connection, which blocks")]
fn server(delay_ns: u64) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|len| len > 0) {
            clock::sleep_ns(delay_ns);
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    });
    stream
}

fn load(pace: Pace, window: usize, delay_ns: u64) -> Load {
    let mut load = Load::new(10, window, pace);
    let producer = Byte { acknowledged: 0, batch: 10 };
    load.add_lane((server(delay_ns), Box::new(producer)), None).expect("a connection");
    load
}

#[test]
fn a_closed_loop_keeps_its_window_and_counts_messages() {
    let mut load = load(Pace::Closed, 2, 5 * MILLISECOND_NS);
    load.run_until(clock::mono_ns() + 200 * MILLISECOND_NS).expect("it answers");
    assert_eq!(load.backlog(), 2);
    load.settle(clock::mono_ns() + SECOND_NS).expect("it answers");
    let tally = load.take_tally();
    assert_eq!(tally.stored, tally.storing.len() * 10);
    assert_eq!(load.backlog(), 0);
    // Two in flight before a server that takes 5 ms for each.
    let p50 = tally.storing.value_at_quantile(0.5);
    assert!(p50 >= 9 * MILLISECOND_NS, "{p50} ns");
}

#[test]
fn an_open_loop_counts_from_when_a_batch_was_due_and_drops_none() {
    // Due every millisecond, answered every five: the backlog grows, and with it the latency.
    let mut load = load(Pace::Open { every_ns: 1e6 }, 4, 5 * MILLISECOND_NS);
    load.run_until(clock::mono_ns() + 200 * MILLISECOND_NS).expect("it answers");
    let tally = load.take_tally();
    assert!(load.due >= 150, "{} were due", load.due);
    assert_eq!(load.due, tally.storing.len() + load.backlog() as u64);
    let max = tally.storing.max();
    assert!(max >= 80 * MILLISECOND_NS, "{max} ns");
}

#[test]
fn a_server_that_leaves_ends_the_trial() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    drop(listener.accept().expect("a connection"));
    let mut load = Load::new(1, 1, Pace::Closed);
    let producer = Byte { acknowledged: 0, batch: 1 };
    load.add_lane((stream, Box::new(producer)), None).expect("a connection");
    assert!(load.run_until(clock::mono_ns() + SECOND_NS).is_err());
}
