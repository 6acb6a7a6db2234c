//! Runs of the log broker: producers, consumers and consumer groups over crashes of the machine, a disk that tears and
//! loses what was not synced, runs full, fails, and changes what was synced.
//!
//! What must hold: a record that was acknowledged is at its offset for ever; what a consumer has read is there for ever;
//! offsets have no gaps; an idempotent producer's records are there once and in its order; what `group` says of
//! consumer groups. Next: `peer` and `member` for what clients do.

mod group;
mod link;
mod member;
mod peer;
mod rot;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use broker::serve::{self, Broker};
use broker::{Endpoint, ShardConfig};
use engine::buf::PoolConfig;
use engine::driver::Setup as DriverSetup;
use engine::driver::sim::{Faults, World};
use engine::net::{ServerConfig, Via};
use engine::rng::{Rng, Seed};
use engine::shard::calls;

use crate::machine::Machine;
use crate::run::{Bug, Failure, Options, Report};
use group::Group;
use member::Member;
use peer::{Consumer, Maker, Producer, Wish};
use rot::Rot;

/// The shared port; shard k alone has the port after it plus k.
const PORT: u16 = 9092;
/// Steps without time passing before a run is a livelock.
const STEPS_PER_TIME_MAX: u32 = 200_000;
/// Longest run after which somebody must be stuck.
const RUN_MAX_NS: u64 = 600_000_000_000;
/// Longest rebalance: a session that ends, and each time-out of a rebalance a few times over.
const SETTLE_MAX_NS: u64 = 60_000_000_000;
/// How long things may go wrong.
const CHAOS_NS: u64 = 3_000_000_000;

/// Where brokers keep their files.
const DIR: &str = "/data/broker";
/// The topic of a run.
pub(crate) const TOPIC: &str = "log";

/// What a run is like.
#[derive(Clone, Debug)]
struct Setup {
    shards: usize,
    partitions: i32,
    batches: u32,
    in_flight: usize,
    crashes: u32,
    /// Bits flip on the disk while the machine is off.
    rots: bool,
    segment_bytes: u64,
    index_interval_bytes: u64,
    /// Members of each group: dynamic and static ones.
    groups: Vec<(usize, usize)>,
    faults: Faults,
    driver: DriverSetup,
}

impl Setup {
    fn draw(seed: u64, calm: bool) -> Self {
        let mut rng = Seed(seed).stream("sim.broker", 0);
        let mut faults = match rng.below(4) {
            _ if calm => Faults::none(),
            0 => Faults::none(),
            1 => Faults::rough(),
            _ => Faults::hostile(),
        };
        let mut disk = |most: f64| if calm || rng.chance(1, 2) { 0.0 } else { most };
        faults.write_error = disk(0.01);
        faults.no_space = disk(0.02);
        faults.short_write = disk(0.1);
        faults.fsync_error = disk(0.01);
        faults.read_error = 0.0;
        faults.survives = disk(0.6);
        // The consumer and producers connect again and again; a refused accept is told by nobody.
        faults.accept_error = 0.0;
        let incremental = rng.chance(1, 2);
        let pool = PoolConfig { buffers: 8, buffer_len_bytes: 16 << 10, incremental };
        Self {
            shards: rng.between(1, 3) as usize,
            partitions: rng.between(1, 3) as i32,
            batches: if calm { 5 } else { rng.between(10, 60) as u32 },
            in_flight: rng.between(1, 5) as usize,
            crashes: if calm { 1 } else { rng.below(4) as u32 },
            rots: !calm && rng.chance(1, 2),
            index_interval_bytes: *rng.pick(&[0, 1_000, 4_096]).unwrap_or(&4_096),
            segment_bytes: *rng.pick(&[500, 2_000, 20_000, 1 << 20]).unwrap_or(&2_000),
            groups: (0..rng.below(3))
                .map(|_| (rng.below(3) as usize, rng.below(3) as usize))
                .collect(),
            faults,
            driver: DriverSetup { pool, sq_entries: 256, ..DriverSetup::default() },
        }
    }

    fn address(shard: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, PORT + 1 + shard as u16))
    }

    fn start(&self, world: &World) -> Result<Machine<Broker>, String> {
        let mut ports = calls::ports(self.shards, 64).into_iter();
        let config = ShardConfig {
            node: 1,
            plain: Endpoint {
                host: "127.0.0.1".into(),
                ports: (0..self.shards).map(|shard| Self::address(shard).port()).collect(),
            },
            // Keys and certificates do not repeat by seed.
            tls: None,
            request_max_bytes: 1 << 20,
            partitions: 1,
            auto_create: false,
            partitions_max: 100,
            rebalance_delay_ms: 0,
            compaction_memory_bytes: 1 << 20,
            in_flight_max: 256,
            users: None,
            reauth_ms: 0,
            quotas: None,
            session_min_ms: 6_000,
        };
        let (machine, listening) = Machine::start(world, self.shards, &self.driver, |cx| {
            let port = ports.next().expect("a port for each shard");
            let server_config = ServerConfig::default();
            let dir = PathBuf::from(DIR);
            let server = serve::start(cx, config.clone(), port, server_config, dir);
            let listening = server.listen(Self::address(cx.index()), Via::Shard);
            (server, listening)
        });
        listening.map(|()| machine).map_err(|error| error.to_string())
    }
}

struct Run {
    world: World,
    setup: Setup,
    machine: Machine<Broker>,
    maker: Option<Maker>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    groups: Vec<Group>,
    members: Vec<Member>,
    rot: Rot,
    rng: Rng,
    steps: u64,
    steps_at_time: u32,
    ready: Vec<usize>,
    crashes: u64,
}

/// What is made before the work begins.
fn wishes(setup: &Setup, bug: Option<Bug>) -> Vec<Wish> {
    let mut config = vec![
        ("segment.bytes", setup.segment_bytes.to_string()),
        ("index.interval.bytes", setup.index_interval_bytes.to_string()),
    ];
    let mut more = Vec::new();
    match bug {
        Some(Bug::EarlyAck) => config.push(("flush.mode", "os".into())),
        Some(Bug::KeepBadSealed) => config.push(("verify.on.read", "false".into())),
        Some(Bug::StaleCommit) => {
            let (topic, config) = (broker::catalog::OFFSETS_TOPIC, Vec::new());
            more.push(Wish::Topic { name: topic, partitions: -1, config });
            more.push(Wish::Option { topic, name: "flush.mode", value: "os" });
        }
        _ => {}
    }
    let topic = Wish::Topic { name: TOPIC, partitions: setup.partitions, config };
    [topic].into_iter().chain(more).collect()
}

/// The members of all groups.
fn members(setup: &Setup, rng: &mut Rng) -> Vec<Member> {
    let mut members = Vec::new();
    for (group, &(dynamic, fixed)) in setup.groups.iter().enumerate() {
        for number in 0..dynamic + fixed {
            let instance = (number >= dynamic).then(|| format!("{}{number}", group::STATIC));
            members.push(Member::new(group, instance, setup, rng));
        }
    }
    members
}

/// Runs a seed.
///
/// # Errors
/// A check failed.
pub fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let setup = Setup::draw(seed, options.calm);
    let world = World::new(seed, Faults::none());
    let failure = |what: String, recent: Vec<String>| Failure {
        seed,
        options,
        what,
        recent,
        story: Vec::new(),
    };
    let machine = setup.start(&world).map_err(|what| failure(what, Vec::new()))?;
    let producers = (0..setup.partitions)
        .map(|partition| Producer::new(partition, setup.shards, setup.batches, setup.in_flight));
    let mut rng = Seed(seed).stream("sim.schedule", 0);
    let mut run = Run {
        groups: setup.groups.iter().map(|_| Group::default()).collect(),
        members: members(&setup, &mut rng),
        producers: producers.collect(),
        consumers: (0..setup.partitions).map(|index| Consumer::new(index, setup.shards)).collect(),
        maker: Some(Maker::new(wishes(&setup, options.bug))),
        rot: Rot::default(),
        rng,
        machine,
        world,
        setup,
        steps: 0,
        steps_at_time: 0,
        ready: Vec::new(),
        crashes: 0,
    };
    if let Some(n) = options.fail_completion {
        run.world.fail_completion(n);
    }
    if let Some(n) = options.fail_call {
        run.world.fail_call(n);
    }
    match run.course() {
        Ok(()) => {
            let report = run.report();
            run.machine.clear();
            Ok(report)
        }
        Err(what) => {
            let what = format!("{what}\n{}", run.describe());
            run.machine.clear();
            Err(failure(what, run.world.recent()))
        }
    }
}

impl Run {
    fn course(&mut self) -> Result<(), String> {
        self.until("making the topic", |run| run.maker.as_ref().is_none_or(Maker::is_done))?;
        self.maker = None;
        self.world.set_faults(self.setup.faults.clone());
        let begun_ns = self.world.now().mono_ns;
        for crash in 0..self.setup.crashes {
            let share = CHAOS_NS / u64::from(self.setup.crashes + 1);
            let end_ns = begun_ns + share * u64::from(crash) + self.rng.below(share);
            self.until("the work before a crash", |run| {
                run.world.now().mono_ns >= end_ns || run.is_idle()
            })?;
            self.crash()?;
        }
        let end_ns = begun_ns + CHAOS_NS;
        self.until("the work", |run| run.world.now().mono_ns >= end_ns || run.is_idle())?;
        self.world.heal();
        // What a failed sync took offline comes back with a start.
        self.crash()?;
        self.consumers.iter_mut().for_each(Consumer::begin_again);
        self.until("the producers' end", |run| run.is_produced())?;
        let ends: Vec<i64> = self.producers.iter().map(Producer::end).collect();
        self.until("the consumers' end", |run| {
            run.consumers.iter().zip(&ends).all(|(consumer, end)| consumer.next() >= *end)
        })?;
        self.settle()?;
        self.audit()
    }

    /// Every rebalance ends, and all that was committed is there.
    fn settle(&mut self) -> Result<(), String> {
        for member in &mut self.members {
            member.calm = true;
        }
        let end_ns = self.world.now().mono_ns + SETTLE_MAX_NS;
        self.until("a rebalance", |run| {
            run.world.now().mono_ns > end_ns || (0..run.groups.len()).all(|one| run.is_settled(one))
        })?;
        match (0..self.groups.len()).find(|group| !self.is_settled(*group)) {
            Some(group) => Err(format!("group {group} does not settle")),
            None => Ok(()),
        }
    }

    /// Whether all members of a group are in one generation and have all partitions between them.
    fn is_settled(&self, group: usize) -> bool {
        let mut members = self.members.iter().filter(|member| member.group == group).peekable();
        if members.peek().is_none() {
            return true;
        }
        let states: Option<Vec<(i32, &[i32])>> = members.map(Member::settled).collect();
        let Some(states) = states else { return false };
        let mut partitions: Vec<i32> = states.iter().flat_map(|(_, list)| *list).copied().collect();
        partitions.sort_unstable();
        states.windows(2).all(|pair| pair[0].0 == pair[1].0)
            && partitions == (0..self.setup.partitions).collect::<Vec<_>>()
    }

    fn is_produced(&self) -> bool {
        self.producers.iter().all(Producer::is_done)
    }

    /// Nobody has anything left to do.
    fn is_idle(&self) -> bool {
        self.is_produced() && self.members.is_empty()
    }

    /// The machine stops and starts again.
    fn crash(&mut self) -> Result<(), String> {
        self.crashes += 1;
        self.machine.clear();
        self.machine.nodes.clear();
        for shard in 0..self.setup.shards {
            self.world.close_shard(shard);
        }
        self.world.crash_disk();
        self.groups.iter_mut().for_each(Group::life_ended);
        if self.setup.rots {
            for partition in 0..self.setup.partitions {
                self.rot.strike(&self.world, partition, &mut self.rng);
            }
        }
        for consumer in &mut self.consumers {
            if self.rng.chance(1, 2) {
                consumer.begin_again();
            }
        }
        self.machine = self.setup.start(&self.world)?;
        Ok(())
    }

    fn audit(&self) -> Result<(), String> {
        for (producer, consumer) in self.producers.iter().zip(&self.consumers) {
            producer.audit(consumer, &self.rot)?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let started_ns = self.world.now().mono_ns;
        while !done(self) {
            if !self.step()? {
                return Err(format!("stuck in {what}: nothing is to come"));
            }
            if self.world.now().mono_ns - started_ns > RUN_MAX_NS {
                return Err(format!("stuck in {what}"));
            }
        }
        Ok(())
    }

    /// One step of a shard, of a client, or of the world; false when nothing is to come.
    fn step(&mut self) -> Result<bool, String> {
        self.steps += 1;
        self.steps_at_time += 1;
        if self.steps_at_time > STEPS_PER_TIME_MAX {
            return Err("livelock".into());
        }
        self.ready.clear();
        self.machine.ready(&mut self.ready)?;
        let shards = self.ready.len();
        let now_ns = self.world.now().mono_ns;
        let due = self.peers().enumerate().filter(|(_, wake_ns)| *wake_ns <= now_ns);
        let due: Vec<usize> = due.map(|(index, _)| index).collect();
        self.ready.extend(due);
        let soon = self.world.next_event_time().is_some_and(|next| next < now_ns + 100_000);
        if self.ready.is_empty() || (soon && self.rng.chance(1, 8)) {
            return Ok(self.pass_time());
        }
        let pick = self.rng.index(self.ready.len());
        let index = self.ready[pick];
        if pick < shards {
            self.machine.step(index, &mut self.rng);
            return Ok(true);
        }
        self.act(index)?;
        Ok(true)
    }

    /// When each client wants to act.
    fn peers(&self) -> impl Iterator<Item = u64> + '_ {
        let producers = self.producers.iter().map(Producer::wake_ns);
        let consumers = self.consumers.iter().map(Consumer::wake_ns);
        // Nobody produces before there is a topic.
        let members = self.members.iter().map(Member::wake_ns);
        let others = producers.chain(consumers).chain(members).filter(|_| self.maker.is_none());
        self.maker.iter().map(Maker::wake_ns).chain(others)
    }

    fn act(&mut self, index: usize) -> Result<(), String> {
        if let Some(maker) = &mut self.maker {
            return maker.act(&self.world);
        }
        let (producers, consumers) = (self.producers.len(), self.consumers.len());
        if let Some(producer) = self.producers.get_mut(index) {
            return producer.act(&self.world, &mut self.rng);
        }
        if let Some(consumer) = self.consumers.get_mut(index - producers) {
            return consumer.act(&self.world, &self.rot);
        }
        let member = &mut self.members[index - producers - consumers];
        let group = &mut self.groups[member.group];
        member.act(&self.world, &mut self.rng, group)
    }

    fn pass_time(&mut self) -> bool {
        let before_ns = self.world.now().mono_ns;
        let wake_ns = self.peers().min().unwrap_or(u64::MAX);
        let passed = match self.world.next_event_time() {
            None if wake_ns == u64::MAX => false,
            Some(event) if event <= wake_ns => self.world.advance(),
            _ => {
                self.world.advance_to(wake_ns.max(before_ns));
                true
            }
        };
        if self.world.now().mono_ns > before_ns {
            self.steps_at_time = 0;
        }
        passed
    }

    fn describe(&self) -> String {
        let producers = self.producers.iter().map(Producer::describe);
        let consumers = self.consumers.iter().map(Consumer::describe);
        let members = self.groups.iter().flat_map(Group::story).cloned();
        let members = members.chain(self.members.iter().map(Member::describe));
        let logs = self.machine.nodes.iter().map(|node| node.cx.log().take());
        producers.chain(consumers).chain(members).chain(logs).collect::<Vec<_>>().join("\n")
    }

    fn report(&self) -> Report {
        let answers: u64 = self.producers.iter().map(Producer::answers).sum();
        let read: u64 = self.consumers.iter().map(|consumer| consumer.counts().0).sum();
        let refused = self.consumers.iter().map(|consumer| consumer.counts().1).sum();
        let counts = |at: usize| self.members.iter().map(|one| one.counts()[at]).sum::<u64>();
        let sum = |of: fn(&Producer) -> u64| self.producers.iter().map(of).sum::<u64>();
        Report {
            hash: self.world.trace_hash() ^ self.steps,
            replies: answers + read + counts(0),
            steps: self.steps,
            virtual_ns: self.world.now().mono_ns,
            stats: self.world.stats(),
            marks: vec![
                ("crashes", self.crashes),
                ("batches acknowledged", sum(Producer::acknowledged)),
                ("batches sent again", sum(Producer::sent_again)),
                ("storage errors", sum(Producer::storage_errors)),
                ("records read", read),
                ("bits flipped", self.rot.flips()),
                ("damaged offsets refused", refused),
                ("joins of groups", counts(1)),
                ("refusals to members", counts(2)),
                ("commits acknowledged", counts(3)),
            ],
            story: Vec::new(),
        }
    }
}
