//! kill -9 under load, again and again: what was acknowledged is there, in order, at its offset, once.
//!
//! Producers send idempotent batches, several in flight, and note what was acknowledged. The broker is killed at a random
//! moment and started on the same files; unanswered batches are sent again with the sequence numbers they had.
//! `BROKER_CRASH_ROUNDS` says how often, 5 if not set; BENCHMARKS.md claims 100.
#![expect(
    clippy::disallowed_methods,
    reason = "a test drives real processes: it waits and reads the environment"
)]

mod common;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use common::Broker;
use common::client::{Client, Mark, batch};
use testing::local;

const TOPIC: &str = "crash";
const PARTITIONS: i32 = 4;
const IN_FLIGHT: usize = 5;
const RECORDS: i32 = 3;

/// A producer of one partition: what it has sent and what it knows to be stored.
struct Producer {
    partition: i32,
    producer_id: i64,
    next_sequence: i32,
    /// Batches without an answer, oldest first.
    open: VecDeque<(i32, Vec<String>)>,
    /// Values by the offset they were acknowledged at.
    stored: BTreeMap<i64, String>,
}

impl Producer {
    fn values(&self, sequence: i32) -> Vec<String> {
        (0..RECORDS).map(|n| format!("{}:{}", self.partition, sequence + n)).collect()
    }

    fn send(&self, client: &mut Client, sequence: i32, values: &[String]) -> std::io::Result<i32> {
        let mark = Mark { producer_id: self.producer_id, epoch: 0, sequence };
        client.produce(TOPIC, self.partition, batch(values, Some(mark)), -1)
    }

    /// Produces until the connection breaks; only what is open, until it is answered, when `last`.
    fn run(&mut self, address: SocketAddr, last: bool) -> std::io::Result<()> {
        let mut client = Client::connect(address)?;
        for (sequence, values) in &self.open {
            self.send(&mut client, *sequence, values)?;
        }
        loop {
            while !last && self.open.len() < IN_FLIGHT {
                let sequence = self.next_sequence;
                let values = self.values(sequence);
                self.next_sequence += RECORDS;
                self.open.push_back((sequence, values.clone()));
                self.send(&mut client, sequence, &values)?;
            }
            if self.open.is_empty() {
                return Ok(());
            }
            let (_, error, base) = client.produced()?;
            assert_eq!(error, 0, "batch {:?} of partition {}", self.open.front(), self.partition);
            let (_, values) = self.open.pop_front().expect("an answer to something");
            for (offset, value) in (base..).zip(values) {
                let before = self.stored.insert(offset, value.clone());
                assert!(before.is_none_or(|before| before == value), "offset {offset} given twice");
            }
        }
    }
}

fn rounds() -> u32 {
    let set = std::env::var("BROKER_CRASH_ROUNDS").ok();
    set.and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// The port of the shard that leads a partition: the one that takes a fetch.
fn leader(broker: &Broker, shards: u16, partition: i32) -> SocketAddr {
    for shard in 0..shards {
        let address = local(broker.port + 1 + shard);
        let mut client = Client::connect(address).expect("a shard listens");
        let (error, ..) = client.fetch(TOPIC, partition, 0, (1000, 0)).expect("an answer");
        if error == 0 {
            return address;
        }
    }
    panic!("nobody leads partition {partition}: {}", broker.process.log());
}

fn check(broker: &Broker, shards: u16, producer: &Producer) {
    let mut client = Client::connect(leader(broker, shards, producer.partition)).expect("a shard");
    let found = client.read_all(TOPIC, producer.partition).expect("readable");
    let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
    let gapless: Vec<i64> = (0..).take(offsets.len()).collect();
    assert_eq!(offsets, gapless, "no gaps, and in order");
    for (at, (_, value)) in found.iter().enumerate() {
        assert_eq!(
            *value,
            format!("{}:{at}", producer.partition),
            "each once, in the producer's order"
        );
    }
    let found: BTreeMap<i64, String> = found.into_iter().collect();
    for (offset, value) in &producer.stored {
        assert_eq!(found.get(offset), Some(value), "acknowledged at {offset}");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    const SHARDS: u16 = 2;
    let mut broker = Broker::start(SHARDS, &[]);
    let mut client = Client::connect(broker.address()).expect("it listens");
    let made = client.create(TOPIC, PARTITIONS).expect("an answer");
    assert_eq!(made.error_code, 0, "{:?}", made.error_message);
    let mut producers: Vec<Producer> = (0..PARTITIONS)
        .map(|partition| Producer {
            partition,
            producer_id: client.producer_id().expect("an id"),
            next_sequence: 0,
            open: VecDeque::new(),
            stored: BTreeMap::new(),
        })
        .collect();
    let mut random = 12_345_u64;
    for round in 0..rounds() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pause = Duration::from_millis(20 + (random >> 33) % 150);
        let leaders: Vec<SocketAddr> =
            (0..PARTITIONS).map(|partition| leader(&broker, SHARDS, partition)).collect();
        thread::scope(|scope| {
            for (producer, address) in producers.iter_mut().zip(leaders) {
                // The connection breaks when the broker is killed.
                scope.spawn(move || drop(producer.run(address, false)));
            }
            thread::sleep(pause);
            broker.process.kill();
        });
        broker = broker.restart(SHARDS, &[]);
        println!(
            "round {round}: {} records acknowledged",
            producers.iter().map(|one| one.stored.len()).sum::<usize>()
        );
        for producer in &producers {
            check(&broker, SHARDS, producer);
        }
    }
    // Everything that was open is answered in the end, and is there once.
    for producer in &mut producers {
        let address = leader(&broker, SHARDS, producer.partition);
        producer.run(address, true).expect("it answers");
        check(&broker, SHARDS, producer);
        assert!(!producer.stored.is_empty(), "partition {} got nothing", producer.partition);
    }
}

#[test]
fn sigterm_answers_what_was_taken() {
    let mut broker = Broker::start(1, &[]);
    let mut client = Client::connect(local(broker.port + 1)).expect("it listens");
    assert_eq!(client.create(TOPIC, 1).expect("an answer").error_code, 0);
    let mut sent = VecDeque::new();
    for number in 0..200 {
        let values = [format!("v{number}")];
        sent.push_back(client.produce(TOPIC, 0, batch(&values, None), -1).expect("sent"));
    }
    let (number, error, base) = client.produced().expect("the first answer");
    assert_eq!((Some(number), error, base), (sent.pop_front(), 0, 0));
    broker.process.terminate();
    let mut answered = 1;
    // What it had not taken may stay without an answer; what it took is answered, in order.
    while let Ok((number, error, base)) = client.produced() {
        assert_eq!((Some(number), error, base), (sent.pop_front(), 0, answered));
        answered += 1;
    }
    let status = broker.process.wait(Duration::from_secs(10)).expect("it ends");
    assert!(status.success(), "{status}: {}", broker.process.log());
    let broker = broker.restart(1, &[]);
    let mut client = Client::connect(local(broker.port + 1)).expect("it listens again");
    let found = client.read_all(TOPIC, 0).expect("readable");
    assert_eq!(i64::try_from(found.len()).expect("few"), answered, "stored is what was answered");
}
