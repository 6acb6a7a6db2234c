//! Nanoseconds per command of a session alone: pipelined GET and SET batches, without sockets.
//!
//! `cargo run --release -p cache --example get_batch [keys]`. The time is that of this thread only,
//! on whatever machine this is: compare runs, not machines.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures wall time around calls that take their time as an argument"
)]

use cache::{ConnInfo, Session, Shard, ShardConfig};
use view::{Flow, Input, Instant, Output, Session as _};

fn frame(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text
}

struct Bench {
    shard: Shard,
    session: Session,
    buffer: Vec<u8>,
    now: Instant,
}

impl Bench {
    fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut input = Input::borrowed(bytes);
        let mut replied = 0;
        loop {
            let mut out = Output::with_buffer(std::mem::take(&mut self.buffer));
            let flow = self.session.on_bytes(&mut input, &mut out, &mut self.shard, self.now);
            replied += out.len();
            self.buffer = out.into_buffer();
            if !matches!(flow, Flow::Flush) {
                assert!(matches!(flow, Flow::NeedInput));
                return replied;
            }
        }
    }

    /// Best and median ns per command over rounds of all batches.
    fn measure(&mut self, batches: &[String], per_batch: usize) -> String {
        let mut rounds = Vec::new();
        for _ in 0..31 {
            let start = std::time::Instant::now();
            for batch in batches {
                self.feed(batch.as_bytes());
            }
            let commands = (batches.len() * per_batch) as f64;
            rounds.push(start.elapsed().as_nanos() as f64 / commands);
        }
        rounds.sort_by(f64::total_cmp);
        format!("{:>6.1} {:>6.1}", rounds[0], rounds[rounds.len() / 2])
    }
}

fn main() {
    let keys: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let now = Instant { mono_ns: 1, unix_us: 1_700_000_000_000_000 };
    let mut shard = Shard::new(ShardConfig::default(), now);
    let info = ConnInfo {
        id: 1,
        peer: "127.0.0.1:1",
        local: "127.0.0.1:6379",
        conn: 0,
        fd: 8,
        shard_port: false,
    };
    let session = Session::new(info, &mut shard, now);
    let mut bench = Bench { shard, session, buffer: Vec::new(), now };
    let value = "v".repeat(64);
    let key = |index: usize| format!("key:{index:012}");
    for index in 0..keys {
        bench.feed(frame(&["SET", &key(index), &value]).as_bytes());
    }
    // A fixed walk that visits keys in no order of theirs.
    let mut at = 1_usize;
    let mut next = || {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        key((at >> 33) % keys)
    };
    println!("{keys} keys, 16 B key, 64 B value; ns per command, best and median of 31 rounds");
    for pipeline in [1, 4, 16, 64, 128] {
        let mut batches = |make: &dyn Fn(&str) -> String| -> Vec<String> {
            (0..(1 << 16) / pipeline)
                .map(|_| (0..pipeline).map(|_| make(&next())).collect())
                .collect()
        };
        let gets = batches(&|key| frame(&["GET", key]));
        let sets = batches(&|key| frame(&["SET", key, &value]));
        let get = bench.measure(&gets, pipeline);
        let set = bench.measure(&sets, pipeline);
        println!("pipeline {pipeline:>3}: GET {get}  SET {set}");
    }
    let pings = vec![frame(&["PING"]).repeat(64); 1024];
    println!("PING, pipeline 64: {}", bench.measure(&pings, 64));
}
