//! Other people's clients, unmodified, against our broker: kcat, confluent-kafka, kafka-python, aiokafka and
//! kafkajs, each against one shard and against two, where every shard is a broker of its own.
//!
//! The scripts in `clients/` hold the assertions and run against any broker. Next: `testing::live` for how a script is run,
//! and what happens to one whose client is missing.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::Broker;
use testing::live::{Clients, Live};
use testing::local;

const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

fn run(name: &str, make: impl Fn() -> Live) {
    run_with(name, &[], make);
}

fn run_with(name: &str, options: &[&str], make: impl Fn() -> Live) {
    for shards in [1, 2] {
        let live = make();
        if !live.is_there(name) {
            return;
        }
        let broker = Broker::start(shards, options);
        let name = format!("{name}, {shards} shard(s)");
        let arguments = [broker.address().to_string()];
        if CLIENTS.run(&name, live, &arguments, || broker.process.log()).is_some() {
            no_copies(&broker, shards, &name);
        }
    }
}

/// Records went from files to sockets without passing through user memory.
fn no_copies(broker: &Broker, shards: u16, name: &str) {
    let mut stream =
        TcpStream::connect(local(broker.port + 1 + shards)).expect("the admin port answers");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("metrics");
    let sum = |metric: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with(metric));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    assert_eq!(sum("broker_fetch_bytes_copied_total"), 0, "{name}: {text}");
    let sent = sum("broker_fetch_bytes_sendfile_total");
    assert!(sent > 0, "{name}: {text}");
    assert_eq!(sent, sum("broker_fetched_bytes_total"), "{name}");
}

#[test]
fn kcat() {
    run("kcat", || CLIENTS.shell("kcat", "kcat.sh"));
}

#[test]
fn confluent_kafka() {
    run("confluent-kafka", || CLIENTS.python("confluent-kafka", "confluent.py"));
}

#[test]
fn kafka_python() {
    run("kafka-python", || CLIENTS.python("kafka-python", "kafka_python.py"));
}

#[test]
fn compaction() {
    run("compaction", || CLIENTS.python("kafka-python", "compaction.py"));
}

#[test]
fn aiokafka() {
    run("aiokafka", || CLIENTS.python("aiokafka", "aio.py"));
}

/// With users, quotas and log-ins that expire, as the scripts expect them.
fn run_logins(name: &str, make: impl Fn() -> Live) {
    let (users, quotas) = (common::users_file(), common::quotas_file());
    let options = ["--broker-users", &users, "--broker-quotas", &quotas, "--broker-reauth", "2s"];
    run_with(name, &options, make);
}

#[test]
fn confluent_kafka_logs_in() {
    let name = "confluent-kafka log-ins";
    run_logins(name, || CLIENTS.python("confluent-kafka", "logins_confluent.py"));
}

#[test]
fn kafka_python_logs_in() {
    let name = "kafka-python log-ins";
    run_logins(name, || CLIENTS.python("kafka-python", "logins_kafka_python.py"));
}

#[test]
fn kafkajs() {
    run("kafkajs", || CLIENTS.node("kafkajs", "kafkajs", "kafka.js"));
}
