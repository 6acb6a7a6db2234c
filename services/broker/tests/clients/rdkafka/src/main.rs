//! The rdkafka crate (librdkafka): every codec, a group of three with a member killed, seeking by time, administration,
//! and an idempotent producer whose connections are reset.
//!
//! Usage: live-rdkafka HOST:PORT [resets | member TOPIC GROUP]

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

const RECORDS: usize = 2000;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the broker is, and names that no other run has.
struct Test {
    servers: String,
    run: u128,
    admin: AdminClient<DefaultClientContext>,
}

/// Counts what was delivered.
#[derive(Clone, Default)]
struct Delivered(Arc<AtomicUsize>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < TIMEOUT, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 300 million")
}

fn config(servers: &str, options: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    // A reset connection is the test's own doing.
    config.set("bootstrap.servers", servers).set_log_level(RDKafkaLogLevel::Critical);
    for (name, value) in options {
        config.set(*name, *value);
    }
    config
}

fn consumer(servers: &str, group: &str, options: &[(&str, &str)]) -> BaseConsumer {
    let mut config = config(servers, options);
    config.set("group.id", group).set("auto.offset.reset", "earliest").set("check.crcs", "true");
    config.create().expect("a consumer")
}

fn place(topic: &str, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset).expect("valid");
    list
}

/// Values and offsets of this many records, and that no more follow.
fn read(consumer: &BaseConsumer, count: usize) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    let started = Instant::now();
    while found.len() < count {
        assert!(started.elapsed() < TIMEOUT, "{} of {count} records", found.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let value = message.payload_view::<str>().expect("a value").expect("text");
            found.push((value.to_owned(), message.offset()));
        }
    }
    let more = consumer.poll(Duration::from_millis(500));
    assert!(!matches!(more, Some(Ok(_))), "a record too many");
    found
}

fn value(number: usize) -> String {
    format!("v{number}{}", "x".repeat(100))
}

impl Test {
    fn new(servers: String) -> Self {
        let admin = config(&servers, &[]).create().expect("an admin client");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Self { servers, run: since.as_nanos(), admin }
    }

    fn create(&self, name: &str, partitions: i32) -> String {
        let name = format!("rs-{name}-{}", self.run);
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let made = block_on(self.admin.create_topics(&[topic], &AdminOptions::new()));
        assert_eq!(made.expect("an answer"), [Ok(name.clone())]);
        name
    }

    fn produce(&self, topic: &str, count: usize, options: &[(&str, &str)]) -> usize {
        let delivered = Delivered::default();
        let producer: ThreadedProducer<Delivered> = config(&self.servers, options)
            .create_with_context(delivered.clone())
            .expect("a producer");
        for number in 0..count {
            let (key, value) = (format!("k{}", number % 50), value(number));
            let record = BaseRecord::to(topic).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        producer.flush(TIMEOUT).expect("delivered");
        assert_eq!(delivered.0.load(Ordering::Relaxed), count);
        count
    }

    /// Each value once.
    fn read_all(&self, topic: &str, count: usize) {
        let consumer = consumer(&self.servers, topic, &[]);
        consumer.subscribe(&[topic]).expect("subscribed");
        let mut found: Vec<String> =
            read(&consumer, count).into_iter().map(|(value, _)| value).collect();
        let mut expected: Vec<String> = (0..count).map(value).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "each record once");
    }

    fn codecs(&self) {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let topic = self.create(codec, 3);
            self.produce(&topic, RECORDS, &[("compression.type", codec)]);
            self.read_all(&topic, RECORDS);
        }
    }

    fn resets(&self) {
        let topic = self.create("resets", 3);
        let options = [("enable.idempotence", "true"), ("batch.num.messages", "100")];
        self.produce(&topic, RECORDS, &options);
        self.read_all(&topic, RECORDS);
    }

    fn groups(&self) {
        let topic = self.create("group", 6);
        let mut members: Vec<Member> =
            (0..3).map(|_| Member::start(&self.servers, &topic)).collect();
        let mut sent = 0;
        until("each member has partitions", || {
            sent += self.produce(&topic, 300, &[]);
            members.iter().all(|member| !member.seen.lock().expect("whole").is_empty())
        });
        let all = |members: &[Member]| {
            let mut all = BTreeSet::new();
            for member in members {
                all.extend(member.seen.lock().expect("whole").iter().cloned());
            }
            all.len()
        };
        until("all records by three members", || all(&members) == sent);
        members[2].kill();
        sent += self.produce(&topic, 300, &[]);
        until("all records by the two that are left", || all(&members) == sent);
        members.iter_mut().for_each(Member::kill);
        let client = consumer(&self.servers, &topic, &[]);
        until("the group is empty", || {
            let list = client.fetch_group_list(Some(&topic), TIMEOUT).expect("groups");
            list.groups().iter().any(|group| group.name() == topic && group.state() == "Empty")
        });
        let deleted = block_on(self.admin.delete_groups(&[&topic], &AdminOptions::new()));
        assert_eq!(deleted.expect("an answer"), [Ok(topic)]);
    }

    fn times(&self) {
        let topic = self.create("times", 1);
        self.produce(&topic, 100, &[]);
        thread::sleep(Duration::from_millis(50));
        let middle = now_ms();
        thread::sleep(Duration::from_millis(50));
        self.produce(&topic, 50, &[]);
        let client = consumer(&self.servers, &topic, &[]);
        let found = client
            .offsets_for_times(place(&topic, Offset::Offset(middle)), TIMEOUT)
            .expect("an answer");
        assert_eq!(found, place(&topic, Offset::Offset(100)));
        client.assign(&found).expect("assigned");
        let offsets: Vec<i64> = read(&client, 50).into_iter().map(|(_, offset)| offset).collect();
        assert_eq!(offsets, (100..150).collect::<Vec<_>>());
        let up_to = place(&topic, Offset::Offset(120));
        let deleted = block_on(self.admin.delete_records(&up_to, &AdminOptions::new()));
        assert_eq!(deleted.expect("an answer"), up_to);
        assert_eq!(client.fetch_watermarks(&topic, 0, TIMEOUT), Ok((120, 150)));
    }

    fn administration(&self) {
        let topic = self.create("admin", 2);
        let options = AdminOptions::new();
        let resource = ResourceSpecifier::Topic(&topic);
        let change = AlterConfig::new(resource).set("retention.ms", "90000");
        let changed = block_on(self.admin.alter_configs([&change], &options));
        assert!(changed.expect("an answer").iter().all(Result::is_ok));
        let described = block_on(self.admin.describe_configs([&resource], &options));
        let described = described.expect("an answer").remove(0).expect("a topic");
        let retention = described.get("retention.ms").expect("an option");
        assert_eq!(retention.value.as_deref(), Some("90000"));
        let more = NewPartitions::new(&topic, 5);
        let grown = block_on(self.admin.create_partitions([&more], &options));
        assert_eq!(grown.expect("an answer"), [Ok(topic.clone())]);
        let client = consumer(&self.servers, &topic, &[]);
        let metadata = client.fetch_metadata(Some(&topic), TIMEOUT).expect("metadata");
        assert_eq!(metadata.topics()[0].partitions().len(), 5);
        let deleted = block_on(self.admin.delete_topics(&[&topic], &options));
        assert_eq!(deleted.expect("an answer"), [Ok(topic.clone())]);
        let metadata = client.fetch_metadata(None, TIMEOUT).expect("metadata");
        assert!(metadata.topics().iter().all(|one| one.name() != topic));
    }
}

/// A member of a group in a process of its own, and the records it saw.
struct Member {
    process: Child,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl Member {
    fn start(servers: &str, topic: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .args([servers, "member", topic, topic])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let filled = Arc::clone(&seen);
        thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| {
                filled.lock().expect("whole").insert(line);
            });
        });
        Self { process, seen }
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn member(servers: &str, topic: &str, group: &str) -> ! {
    let options = [
        ("session.timeout.ms", "2000"),
        ("heartbeat.interval.ms", "400"),
        ("auto.commit.interval.ms", "100"),
    ];
    let client = consumer(servers, group, &options);
    client.subscribe(&[topic]).expect("subscribed");
    loop {
        if let Some(Ok(message)) = client.poll(Duration::from_millis(100)) {
            println!("{} {}", message.partition(), message.offset());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [servers, "member", topic, group] => member(servers, topic, group),
        [servers, "resets"] => Test::new(servers.to_owned()).resets(),
        [servers] => {
            let test = Test::new(servers.to_owned());
            test.codecs();
            test.groups();
            test.times();
            test.administration();
        }
        _ => panic!("usage: live-rdkafka HOST:PORT [resets | member TOPIC GROUP]"),
    }
    println!("rdkafka: ok");
}
