//! Other people's clients, unmodified, against our broker: kcat, confluent-kafka, kafka-python, aiokafka, kafkajs
//! and the rdkafka crate, each against one shard and against two, where every shard is a broker of its own; then through a
//! proxy that resets connections. Some of them over TLS and with log-ins, and a test suite of other people.
//!
//! The scripts in `clients/` hold the assertions and run against any broker. Next: `testing::live` for how a script is run,
//! and what happens to one whose client is missing.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use common::{Broker, Data};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testing::live::{Clients, Live};
use testing::{Proxy, free_ports, local};

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

/// Runs a script against the port for TLS, once without and once with certificates of clients.
fn run_tls(name: &str, make: impl Fn() -> Live) {
    let pems = Pems::make(name);
    for (shards, mode) in [(1, "tls"), (2, "mutual")] {
        let live = make();
        if !live.is_there(name) {
            return;
        }
        let address = local(free_ports(shards + 1)).to_string();
        let [ca, cert, key] =
            ["ca.pem", "server.pem", "server-key.pem"].map(|name| pems.path(name));
        let mut options = vec!["--broker-tls", &address, "--broker-tls-cert", &cert];
        options.extend(["--broker-tls-key", &key]);
        if mode == "mutual" {
            options.extend(["--broker-tls-client-ca", &ca]);
        }
        let broker = Broker::start(shards, &options);
        let plain = broker.address().to_string();
        let name = format!("{name}, {mode}, {shards} shard(s)");
        let arguments = [address.clone(), pems.path(""), mode.to_owned(), plain];
        if CLIENTS.run(&name, live, &arguments, || broker.process.log()).is_some() {
            let metrics = metrics(&broker, shards);
            let fetched = sum(&metrics, "broker_fetched_bytes_total");
            assert_eq!(sum(&metrics, "broker_fetch_bytes_sendfile_total"), 0, "{name}");
            assert_eq!(sum(&metrics, "broker_fetch_bytes_copied_total"), fetched, "{name}");
            assert!(sum(&metrics, "broker_tls_handshakes_total") > 0, "{name}");
            assert!(sum(&metrics, "broker_tls_errors_total") > 0, "{name}: somebody was refused");
        }
    }
}

/// Files of two authorities, a server and a client, as the scripts name them.
struct Pems(Data);

impl Pems {
    fn make(name: &str) -> Self {
        let directory = common::scratch().join(format!("pems-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a writable directory");
        let pems = Self(Data(directory));
        let authority = authority("ours");
        pems.write("ca.pem", &authority.pem());
        pems.write("stranger-ca.pem", &self::authority("stranger").pem());
        for (role, names) in [("server", ["127.0.0.1", "localhost"]), ("client", ["client"; 2])] {
            let key = KeyPair::generate().expect("randomness");
            let names: Vec<String> = names.map(Into::into).into();
            let params = CertificateParams::new(names).expect("valid names");
            let cert = params.signed_by(&key, &authority).expect("a valid certificate");
            pems.write(&format!("{role}.pem"), &cert.pem());
            pems.write(&format!("{role}-key.pem"), &key.serialize_pem());
        }
        pems
    }

    fn path(&self, name: &str) -> String {
        self.0.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a writable directory");
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("randomness");
    CertifiedIssuer::self_signed(params, key).expect("a valid authority")
}

/// Records went from files to sockets without passing through user memory.
fn no_copies(broker: &Broker, shards: u16, name: &str) {
    let metrics = metrics(broker, shards);
    assert_eq!(sum(&metrics, "broker_fetch_bytes_copied_total"), 0, "{name}: {metrics}");
    let sent = sum(&metrics, "broker_fetch_bytes_sendfile_total");
    assert!(sent > 0, "{name}: {metrics}");
    assert_eq!(sent, sum(&metrics, "broker_fetched_bytes_total"), "{name}");
}

/// A metric of all shards.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn metrics(broker: &Broker, shards: u16) -> String {
    let mut stream =
        TcpStream::connect(local(broker.port + 1 + shards)).expect("the admin port answers");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("metrics");
    text
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

#[test]
fn openssl_over_tls() {
    run_tls("openssl", || CLIENTS.shell("openssl", "openssl.sh"));
}

#[test]
fn confluent_kafka_over_tls() {
    run_tls("confluent-kafka-tls", || CLIENTS.python("confluent-kafka", "confluent_tls.py"));
}

#[test]
fn kafka_python_over_tls() {
    run_tls("kafka-python-tls", || CLIENTS.python("kafka-python", "kafka_python_tls.py"));
}
