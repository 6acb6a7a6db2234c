//! Other people's clients, unmodified, against our broker: kcat, confluent-kafka, kafka-python, aiokafka, kafkajs
//! and the rdkafka crate, each against one shard and against two, where every shard is a broker of its own; and a test suite
//! of other people. Then through a proxy that resets connections.
//!
//! The scripts in `clients/` hold the assertions and run against any broker. Next: `testing::live` for how a script is run,
//! and what happens to one whose client is missing.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use common::Broker;
use testing::live::{Clients, Live};
use testing::{Proxy, local};

const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

/// Members of a group that are killed are noticed soon.
const SHORT_SESSIONS: [&str; 2] = ["--broker-session-timeout-min", "1s"];

/// Where clients find the broker behind the proxy: same ports, another address of this machine.
const PROXY_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections are cut when a client has sent this much; the scripts send more than ten times as much.
const CUT_AFTER_BYTES: u64 = 4000;
const CUTS: u64 = 3;

/// Everything a client does, and then what it does when connections are reset under it.
fn run(name: &str, make: impl Fn() -> Live) {
    run_with(name, &[], &make);
    let live = make();
    if live.is_there(name) {
        resets(name, live);
    }
}

fn run_with(name: &str, options: &[&str], make: impl Fn() -> Live) {
    for shards in [1, 2] {
        let live = make();
        if !live.is_there(name) {
            return;
        }
        let broker = Broker::start(shards, &[&SHORT_SESSIONS, options].concat());
        let name = format!("{name}, {shards} shard(s)");
        let arguments = [broker.address().to_string()];
        if CLIENTS.run(&name, live, &arguments, || broker.process.log()).is_some() {
            no_copies(&broker, shards, &name);
        }
    }
}

/// The script produces idempotently while answers get lost, and finds each record once.
fn resets(name: &str, live: Live) {
    let name = format!("{name}, connections reset");
    let broker = Broker::start(1, &["--broker-announce", &PROXY_HOST.to_string()]);
    let through = |port: u16| (SocketAddr::from((PROXY_HOST, port)), local(port));
    let pairs = [through(broker.port), through(broker.port + 1)];
    let proxy = Proxy::start(&pairs, CUT_AFTER_BYTES, CUTS);
    let arguments = [pairs[0].0.to_string(), "resets".to_owned()];
    if CLIENTS.run(&name, live, &arguments, || broker.process.log()).is_some() {
        assert_eq!(proxy.cuts(), CUTS, "{name}");
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

/// kafka-python's own integration tests, which are written for one broker and for short sessions.
#[test]
fn kafka_python_suite() {
    let name = "kafka-python's own tests";
    let live = CLIENTS.python("kafka-python-suite", "kafka_python_suite.py");
    if live.is_there(name) {
        let broker = Broker::start(1, &SHORT_SESSIONS);
        let arguments = [broker.address().to_string()];
        CLIENTS.run(name, live, &arguments, || broker.process.log());
    }
}

#[test]
fn compaction() {
    run_with("compaction", &[], || CLIENTS.python("kafka-python", "compaction.py"));
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
fn rdkafka() {
    run("rdkafka", || CLIENTS.program("rdkafka", "debug/live-rdkafka"));
}

#[test]
fn kafkajs() {
    run("kafkajs", || CLIENTS.node("kafkajs", "kafkajs", "kafka.js"));
}
