//! Other people's clients, unmodified, against our broker: kcat, confluent-kafka, kafka-python, aiokafka and
//! kafkajs, each against one shard and against two, where every shard is a broker of its own; over TLS, openssl and two of them.
//!
//! The scripts in `clients/` hold the assertions and run against any broker. Next: `testing::live` for how a script is run,
//! and what happens to one whose client is missing.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Broker, Data};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testing::live::{Clients, Live};
use testing::{free_ports, local};

const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

fn run(name: &str, make: impl Fn() -> Live) {
    for shards in [1, 2] {
        let live = make();
        if !live.is_there(name) {
            return;
        }
        let broker = Broker::start(shards, &[]);
        let name = format!("{name}, {shards} shard(s)");
        let arguments = [broker.address().to_string()];
        if CLIENTS.run(&name, live, &arguments, || broker.process.log()).is_some() {
            no_copies(&broker, shards, &name);
        }
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

#[test]
fn compaction() {
    run("compaction", || CLIENTS.python("kafka-python", "compaction.py"));
}

#[test]
fn aiokafka() {
    run("aiokafka", || CLIENTS.python("aiokafka", "aio.py"));
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
