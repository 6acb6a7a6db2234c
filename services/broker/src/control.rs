//! Changes to the catalog, one after the other, on the first shard.
//!
//! A change is checked against the catalog, stored durably, told to every shard, and answered when all of them
//! know it: then a client that asks any shard finds what it made. Next: `catalog` for the file, `apply` here for
//! what a shard does with a new one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use engine::error::Error;
use engine::exec::sync::{Notify, Receiver, once};
use engine::fs::Dir;
use engine::net::Server;
use engine::shard::ShardCx;

use crate::catalog::{self, Catalog, OFFSETS_TOPIC, Topic, show_id};
use crate::code::Code;
use crate::coordinator::{self, OFFSETS_PARTITIONS};
use crate::partition::{Partition, remove_dir};
use crate::serve::Broker;
use crate::shard::{Shard, Slot, TopicEntry};
use crate::topic_config::{self, TopicConfig};
use crate::work::{Answer, Ask};

/// The controller's shard.
pub(crate) const CONTROLLER: usize = 0;
/// Producer ids given to a shard at once.
pub(crate) const PRODUCER_ID_BLOCK: i64 = 1000;
/// Partitions of a topic, at most.
const TOPIC_PARTITIONS_MAX: i32 = 100_000;
/// Partitions that are opened at a time.
const OPENING_MAX: usize = 32;
/// Between lines that say how far a start has come.
const PROGRESS_EVERY: usize = 1000;

/// A change that is asked for.
#[derive(Clone, Debug)]
pub enum Change {
    /// Make a topic; only say whether it could be when `check_only`.
    Create {
        /// Its name.
        name: String,
        /// How many partitions; -1 for the broker's default.
        partitions: i32,
        /// What is set.
        config: BTreeMap<String, String>,
        /// Change nothing.
        check_only: bool,
    },
    /// Delete a topic.
    Delete {
        /// Its name.
        name: String,
    },
    /// Give a topic more partitions.
    Grow {
        /// Its name.
        name: String,
        /// How many in all.
        partitions: i32,
        /// Change nothing.
        check_only: bool,
    },
    /// Set and unset options of a topic.
    Configure {
        /// Its name.
        name: String,
        /// New values; none to unset.
        values: Vec<(String, Option<String>)>,
        /// Unset all others.
        replace: bool,
        /// Change nothing.
        check_only: bool,
    },
    /// Give out a block of producer ids.
    ProducerIds,
}

/// What came of a change: the topic as it is now, or the first number of a block.
pub(crate) type Changed = Result<Outcome, (Code, String)>;

/// A change that was made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The topic, where there is one.
    pub topic: Option<Topic>,
    /// The first producer id of the block.
    pub producer_id: i64,
}

/// The controller's own.
#[derive(Debug)]
pub(crate) struct Controller {
    dir: Rc<Dir>,
    busy: std::cell::Cell<bool>,
    idle: Notify,
}

impl Controller {
    pub(crate) fn new(dir: Rc<Dir>) -> Self {
        Self { dir, busy: std::cell::Cell::new(false), idle: Notify::default() }
    }
}

/// Ends a change when it is dropped.
struct Busy<'a>(&'a Controller);

impl<'a> Busy<'a> {
    async fn begin(controller: &'a Controller) -> Self {
        loop {
            let idle = controller.idle.notified();
            if !controller.busy.replace(true) {
                return Self(controller);
            }
            idle.await;
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.idle.notify_all();
    }
}

fn refuse(code: Code, why: impl Into<String>) -> (Code, String) {
    (code, why.into())
}

/// The catalog with the change made.
fn changed(
    shard: &Shard,
    change: &Change,
    id: impl FnOnce() -> [u8; 16],
) -> Result<(Catalog, Outcome, bool), (Code, String)> {
    let mut next = Catalog::clone(&shard.catalog);
    next.epoch += 1;
    let mut outcome = Outcome { topic: None, producer_id: -1 };
    let unknown =
        |name: &str| refuse(Code::UnknownTopicOrPartition, format!("there is no topic {name}"));
    let check_only = match change {
        Change::Create { name, partitions, config, check_only } => {
            catalog::check_name(name).map_err(|why| refuse(Code::InvalidTopic, why))?;
            if next.topics.contains_key(name) {
                return Err(refuse(Code::TopicAlreadyExists, format!("topic {name} exists")));
            }
            let partitions = if *partitions == -1 { shard.config.partitions } else { *partitions };
            check_partitions(shard, &next, partitions, 0)?;
            check_config(config)?;
            let (partitions, config) = match name.as_str() {
                OFFSETS_TOPIC => (OFFSETS_PARTITIONS, offsets_config()),
                _ => (partitions, config.clone()),
            };
            let topic = Topic { name: name.clone(), id: id(), partitions, config };
            outcome.topic = Some(topic.clone());
            next.topics.insert(name.clone(), topic);
            *check_only
        }
        Change::Delete { name } => {
            if name == OFFSETS_TOPIC {
                return Err(refuse(Code::InvalidTopic, "the topic is internal"));
            }
            outcome.topic = Some(next.topics.remove(name).ok_or_else(|| unknown(name))?);
            false
        }
        Change::Grow { name, partitions, check_only } => {
            let before = next.topics.get(name).ok_or_else(|| unknown(name))?.partitions;
            if *partitions <= before {
                let why = format!("topic {name} has {before} partitions, and cannot have fewer");
                return Err(refuse(Code::InvalidPartitions, why));
            }
            check_partitions(shard, &next, *partitions, before)?;
            if let Some(topic) = next.topics.get_mut(name) {
                topic.partitions = *partitions;
                outcome.topic = Some(topic.clone());
            }
            *check_only
        }
        Change::Configure { name, values, replace, check_only } => {
            let topic = next.topics.get_mut(name).ok_or_else(|| unknown(name))?;
            if *replace {
                topic.config.clear();
            }
            for (option, value) in values {
                match value {
                    Some(value) => topic.config.insert(option.clone(), value.clone()),
                    None => topic.config.remove(option),
                };
            }
            check_config(&topic.config)?;
            outcome.topic = Some(topic.clone());
            *check_only
        }
        Change::ProducerIds => {
            outcome.producer_id = next.next_producer_id;
            next.next_producer_id += PRODUCER_ID_BLOCK;
            false
        }
    };
    Ok((next, outcome, check_only))
}

/// What is set of the internal topic, whoever asks for it.
fn offsets_config() -> BTreeMap<String, String> {
    let set = [("cleanup.policy", "compact"), ("segment.bytes", "104857600")];
    set.map(|(option, value)| (option.to_owned(), value.to_owned())).into()
}

fn check_partitions(
    shard: &Shard,
    catalog: &Catalog,
    partitions: i32,
    before: i32,
) -> Result<(), (Code, String)> {
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
        let why = format!("{partitions} partitions; from 1 to {TOPIC_PARTITIONS_MAX} are possible");
        return Err(refuse(Code::InvalidPartitions, why));
    }
    let more = usize::try_from(partitions - before).unwrap_or(usize::MAX);
    let most = shard.config.partitions_max;
    if catalog.partitions().saturating_add(more) > most {
        let why = format!("there would be more than {most} partitions (--broker-partitions-max)");
        return Err(refuse(Code::PolicyViolation, why));
    }
    Ok(())
}

fn check_config(config: &BTreeMap<String, String>) -> Result<(), (Code, String)> {
    topic_config::check_all(config).map_err(|why| refuse(Code::InvalidConfig, why))
}

/// Makes a change, on the controller's shard.
pub(crate) async fn change(server: &Rc<Server<Broker>>, change: &Change) -> Changed {
    let Some(controller) = server.service().controller() else {
        return Err(refuse(Code::NotController, Code::NotController.text()));
    };
    let _busy = Busy::begin(&controller).await;
    let cx = server.cx().clone();
    let made = changed(&server.shard().borrow(), change, || new_id(&cx));
    let (next, outcome, check_only) = made?;
    if check_only {
        return Ok(outcome);
    }
    if let Err(error) = next.store(&cx, &controller.dir).await {
        cx.log().error("broker", cx.now(), "catalog not stored", &[("why", &error)]);
        return Err(refuse(Code::StorageError, error.to_string()));
    }
    spread(server, Arc::new(next)).await;
    Ok(outcome)
}

/// A change asked for on any shard.
pub(crate) async fn request(server: &Rc<Server<Broker>>, asked: Change) -> Changed {
    if server.cx().index() == CONTROLLER {
        return change(server, &asked).await;
    }
    let ask = Ask::Change(Box::new(asked));
    match server.service().calls().ask(CONTROLLER, ask).await {
        Some(Answer::Changed(changed)) => changed,
        _ => Err(refuse(Code::UnknownServerError, "the controller has stopped")),
    }
}

fn new_id(cx: &ShardCx) -> [u8; 16] {
    let mut rng = cx.rng();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    // Ids that begin with zeros are reserved, and one that begins with '-' is awkward on a command line.
    id[0] = id[0] & 0x7f | 1;
    id
}

/// Tells every shard of the catalog, this one included, and waits until all know it.
async fn spread(server: &Rc<Server<Broker>>, catalog: Arc<Catalog>) {
    let calls = server.service().calls();
    let mut asked = Vec::new();
    for shard in 0..server.cx().count() {
        if shard != server.cx().index() {
            asked.push(calls.start(shard, Ask::Catalog(Arc::clone(&catalog))).await);
        }
    }
    apply(server, catalog).await;
    for answer in asked {
        answer.recv().await;
    }
}

/// Reads the catalog and tells every shard; the controller's part of a start.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn start(server: &Rc<Server<Broker>>, dir: PathBuf) -> Result<(), Error> {
    let cx = server.cx().clone();
    let handle = Rc::new(Dir::open(&cx, &dir).await?);
    let mut catalog = Catalog::load(&cx, &dir).await?;
    if catalog.cluster_id.is_empty() {
        catalog.cluster_id = show_id(&new_id(&cx));
        catalog.store(&cx, &handle).await?;
    }
    server.service().set_controller(Controller::new(handle));
    spread(server, Arc::new(catalog)).await;
    Ok(())
}

/// What of a new catalog concerns this shard's files.
struct Todo {
    open: Vec<(Rc<str>, i32, Rc<TopicConfig>)>,
    close: Vec<Slot>,
}

/// Makes this shard know a catalog: opens what is its own and new, removes what is gone.
pub(crate) async fn apply(server: &Rc<Server<Broker>>, catalog: Arc<Catalog>) {
    let cx = server.cx().clone();
    let Todo { open, close } = prepare(&mut server.shard().borrow_mut(), &catalog, cx.index());
    for slot in close {
        let gone = server.shard().borrow_mut().remove_partition(slot);
        if let Some(partition) = gone
            && let Err(error) = remove_dir(&cx, partition.dir()).await
        {
            cx.log().warn("broker", cx.now(), "files left behind", &[("why", &error)]);
        }
    }
    let (all, begun_ns) = (open.len(), cx.now().mono_ns);
    let mut open = open.into_iter();
    let mut done = 0;
    while done < all {
        // Tasks of their own, so that others get their turn and the disk has several syncs at a time.
        let opening: Vec<Receiver<()>> = open
            .by_ref()
            .take(OPENING_MAX)
            .map(|(topic, index, config)| {
                let (sender, receiver) = once();
                let server = Rc::clone(server);
                cx.spawn("broker partition", async move {
                    open_partition(&server, topic, index, config).await;
                    sender.send(());
                });
                receiver
            })
            .collect();
        for receiver in opening {
            receiver.recv().await;
            done += 1;
            if done % PROGRESS_EVERY == 0 && done < all {
                let pairs: [(&str, &dyn std::fmt::Display); 2] = [("done", &done), ("of", &all)];
                cx.log().info("broker", cx.now(), "opening partitions", &pairs);
            }
        }
    }
    if all >= PROGRESS_EVERY {
        let ms = (cx.now().mono_ns - begun_ns) / 1_000_000;
        cx.log().info("broker", cx.now(), "partitions open", &[("count", &all), ("ms", &ms)]);
    }
    server.shard().borrow_mut().catalog = catalog;
    server.service().set_loaded(server);
}

async fn open_partition(
    server: &Rc<Server<Broker>>,
    topic: Rc<str>,
    index: i32,
    config: Rc<TopicConfig>,
) {
    let cx = server.cx().clone();
    let dir = server.service().dir().join(format!("{topic}-{index}"));
    let opened = Partition::open(&cx, dir, Rc::clone(&topic), index, config).await;
    let partition = match opened {
        Ok(partition) => partition,
        Err(error) => {
            let pairs: [(&str, &dyn std::fmt::Display); 3] =
                [("topic", &topic), ("partition", &index), ("why", &error)];
            return cx.log().error("broker", cx.now(), "partition not opened", &pairs);
        }
    };
    let slot = add_partition(&mut server.shard().borrow_mut(), &topic, index, partition);
    if &*topic == OFFSETS_TOPIC {
        coordinator::load(server, slot).await;
    }
}

fn add_partition(shard: &mut Shard, topic: &Rc<str>, index: i32, partition: Partition) -> Slot {
    let slot = shard.add_partition(partition);
    if let Some(entry) = shard.topics.get_mut(topic)
        && let Some(place) = usize::try_from(index).ok().and_then(|at| entry.slots.get_mut(at))
    {
        *place = Some(slot);
    }
    slot
}

/// Brings the shard's topics in line with the catalog, but for partitions that have to be opened.
fn prepare(shard: &mut Shard, catalog: &Catalog, index: usize) -> Todo {
    let mut todo = Todo { open: Vec::new(), close: Vec::new() };
    let mut topics = std::mem::take(&mut shard.topics);
    topics.retain(|name, entry| {
        let stays = catalog.topics.get(&**name).is_some_and(|topic| topic.id == entry.id);
        if !stays {
            todo.close.extend(entry.slots.iter().flatten());
            shard.names.remove(&entry.id);
        }
        stays
    });
    for topic in catalog.topics.values() {
        let config = Rc::new(TopicConfig::new(&topic.config));
        let name: Rc<str> = topics
            .get_key_value(topic.name.as_str())
            .map_or_else(|| topic.name.as_str().into(), |(name, _)| Rc::clone(name));
        let entry = topics.entry(Rc::clone(&name)).or_insert_with(|| TopicEntry {
            id: topic.id,
            config: Rc::clone(&config),
            internal: topic.is_internal(),
            slots: Vec::new(),
        });
        if entry.config != config {
            entry.config = Rc::clone(&config);
            for slot in entry.slots.iter().flatten() {
                if let Some(partition) = shard.partition(*slot) {
                    partition.config = Rc::clone(&config);
                }
            }
        }
        let first_new = i32::try_from(entry.slots.len()).unwrap_or(i32::MAX);
        entry.slots.resize(usize::try_from(topic.partitions).unwrap_or(0), None);
        for partition in first_new..topic.partitions {
            if topic.leader(partition, shard.config.plain.ports.len()) == index {
                todo.open.push((Rc::clone(&name), partition, Rc::clone(&config)));
            }
        }
        shard.names.insert(topic.id, name);
    }
    shard.topics = topics;
    todo
}
