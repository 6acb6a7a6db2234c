//! The course of a run: load, crash, restart, look; over and over, and once more when nothing goes wrong any more.

use std::collections::BTreeMap;

use cache::serve::Cache;
use cache::work::{Batch, Response};
use engine::driver::sim::{Faults, World};
use engine::rng::{Rng, Seed};
use wire::resp::{Reply, decode_reply};

use super::admin::Admin;
use super::lane::Cuts;
use super::peer::{Common, Peer, Sight, group_cuts, group_name, key_name};
use super::setup::{Doors, Keep, Setup, log_dir, topology};
use super::value::{Kind, State, Value, read_reply, read_words};
use crate::command::frame;
use crate::machine::Machine;
use crate::op::Span;
use crate::run::{Failure, Options, Report};

/// Steps without time passing before a run is a livelock.
const STEPS_PER_TIME_MAX: u32 = 200_000;
/// Longest stretch after which somebody must be stuck.
const STRETCH_MAX_NS: u64 = 100_000_000_000;
/// How long the machine runs between crashes, at most.
const LIFE_NS: u64 = 900_000_000;
/// How long clients may take to settle before the last crash, and a machine to stop.
const CALM_NS: u64 = 2_000_000_000;
/// Starts that may fail while the disk does.
const STARTS_MAX: u32 = 4;

struct Run {
    world: World,
    setup: Setup,
    machine: Machine<Cache>,
    /// Shards of the machine that runs.
    shards: usize,
    peers: Vec<Peer>,
    admin: Admin,
    rng: Rng,
    steps: u64,
    step: u64,
    steps_at_time: u32,
    replies: u64,
    started_ns: u64,
    ready: Vec<usize>,
    marks: BTreeMap<&'static str, u64>,
    story: Option<Vec<String>>,
    healed: bool,
}

/// What all keys hold.
struct Found {
    keys: Vec<BTreeMap<usize, State>>,
    groups: Vec<Vec<Vec<Value>>>,
}

/// Runs a seed.
///
/// # Errors
/// A check failed.
pub(crate) fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let setup = Setup::draw(seed);
    let world = World::new(seed, Faults::none());
    let mut rng = Seed(seed).stream("sim.schedule", 0);
    let shards = rng.between(1, 3) as usize;
    let story = options.story.then(Vec::new);
    let failure = |what: String, recent, story| Failure { seed, options, what, recent, story };
    let machine = setup
        .start(&world, shards)
        .map_err(|error| failure(error.to_string(), Vec::new(), Vec::new()))?;
    let mut run = Run {
        peers: (0..setup.clients)
            .map(|number| Peer::new(number, setup.shape(), Doors::ALONE))
            .collect(),
        admin: Admin::new(&setup),
        started_ns: world.now().mono_ns,
        world,
        setup,
        machine,
        shards,
        rng,
        steps: 0,
        step: 0,
        steps_at_time: 0,
        replies: 0,
        ready: Vec::new(),
        marks: BTreeMap::new(),
        story,
        healed: false,
    };
    let course = run.course();
    run.machine.end();
    let story = run.story.take().unwrap_or_default();
    match course {
        Ok(()) => Ok(run.report(story)),
        Err(what) => {
            let from = story.len().saturating_sub(3_000);
            let what = format!("{what}\n{:?}", run.setup);
            Err(failure(what, run.world.recent(), story[from..].to_vec()))
        }
    }
}

impl Run {
    fn course(&mut self) -> Result<(), String> {
        self.loaded()?;
        self.verify(0)?;
        self.world.set_faults(self.setup.faults.clone());
        for _ in 0..self.setup.crashes {
            let life_ns = self.rng.between(1, LIFE_NS);
            let life_ns = if self.rng.chance(1, 6) { life_ns * 4 } else { life_ns };
            self.go_on(life_ns)?;
            let sure_ns = if self.rng.chance(1, 5) { self.stop()? } else { self.crash() };
            self.restart(sure_ns)?;
        }
        self.go_on(LIFE_NS / 2)?;
        self.calm()?;
        let sure_ns = self.crash();
        self.restart(sure_ns)?;
        self.go_on(LIFE_NS / 4)?;
        self.calm()?;
        if self.setup.rots {
            return self.rot();
        }
        let sure_ns = self.stop()?;
        self.restart(sure_ns)
    }

    /// Nothing goes wrong any more, and everybody comes to an end.
    fn calm(&mut self) -> Result<(), String> {
        self.world.heal();
        self.healed = true;
        self.rest(true);
        let end_ns = self.world.now().mono_ns + CALM_NS;
        self.until("the end of what is under way", |run| {
            let is_idle = run.peers.iter().all(Peer::is_idle) && run.admin.is_idle();
            is_idle || run.world.now().mono_ns > end_ns
        })?;
        self.rest(false);
        Ok(())
    }

    fn rest(&mut self, rests: bool) {
        self.peers.iter_mut().for_each(|peer| peer.rests = rests);
        self.admin.rests = rests;
    }

    fn go_on(&mut self, ns: u64) -> Result<(), String> {
        let end_ns = self.world.now().mono_ns + ns;
        self.until("the load", |run| run.world.now().mono_ns >= end_ns)?;
        match self.world.ended() {
            None => Ok(()),
            Some(code) => Err(format!("the process ended with {code} under load: {}", self.said())),
        }
    }

    // Crashes.

    /// The machine stops; replies until when tell of what must be there.
    fn crash(&mut self) -> u64 {
        self.mark("durable: crashes");
        let sure_ns = self.admin.promise.sure_ns(self.world.now().mono_ns);
        self.tell(|| format!("crash; {sure_ns} ns is sure"));
        self.power_off();
        sure_ns
    }

    fn power_off(&mut self) {
        self.machine.end();
        for shard in 0..self.shards {
            self.world.close_shard(shard);
        }
        self.world.crash_disk();
        self.peers.iter_mut().for_each(Peer::crashed);
        self.admin.crashed();
    }

    /// The machine is stopped in order, as by SIGTERM; replies until when tell of what must be there.
    fn stop(&mut self) -> Result<u64, String> {
        self.tell(|| "stop".into());
        for shard in 0..self.shards {
            self.machine.stop(shard);
        }
        let end_ns = self.world.now().mono_ns + CALM_NS;
        self.until("the machine's end", |run| {
            run.machine.is_stopped() || run.world.now().mono_ns > end_ns
        })?;
        let now_ns = self.world.now().mono_ns;
        if self.machine.is_stopped() && !self.setup.disk_fails() {
            self.mark("durable: stops");
            self.admin.promise.stopped(now_ns);
        }
        Ok(self.crash())
    }

    /// Starts the machine until it runs, and looks at what it has.
    fn restart(&mut self, sure_ns: u64) -> Result<(), String> {
        let mut failed = 0;
        loop {
            if self.rng.chance(1, 3) {
                let away_ns = self.rng.between(0, 3_000_000_000);
                self.world.advance_to(self.world.now().mono_ns + away_ns);
            }
            if self.rng.chance(1, 2) {
                self.shards = self.rng.between(1, 3) as usize;
            }
            let shards = self.shards;
            self.tell(|| format!("start with {shards} shards"));
            let why = match self.setup.start(&self.world, shards) {
                Ok(machine) => {
                    self.machine = machine;
                    if self.rng.chance(1, 6) {
                        for _ in 0..self.rng.below(600) {
                            self.step()?;
                        }
                        if self.world.ended().is_none() {
                            self.mark("durable: crashes of a start");
                            self.power_off();
                            continue;
                        }
                    }
                    self.loaded()?
                }
                Err(error) => Some(error.to_string()),
            };
            let Some(why) = why else { break };
            if self.healed {
                return Err(format!("the machine does not start: {why}"));
            }
            self.mark("durable: starts failed");
            self.tell(|| format!("no start: {why}"));
            failed += 1;
            if failed == STARTS_MAX {
                self.world.heal();
                self.healed = true;
            }
            self.power_off();
        }
        self.verify(sure_ns)?;
        if self.healed && failed > 0 {
            self.healed = false;
            self.world.set_faults(self.setup.faults.clone());
        }
        Ok(())
    }

    /// Waits until all keys are loaded; why they are not, otherwise.
    fn loaded(&mut self) -> Result<Option<String>, String> {
        self.until("the start", |run| {
            run.world.ended().is_some()
                || matches!(run.ask(&[b"GET", b"x"]), Some(Reply::Null | Reply::Bulk(_)))
        })?;
        Ok(self.world.ended().map(|code| format!("exit code {code}: {}", self.said())))
    }

    /// What shards have logged of errors.
    fn said(&self) -> String {
        self.machine.nodes.iter().map(|node| node.cx.log().take()).collect()
    }

    /// Runs a command on the shard that owns its key, from within.
    fn ask(&self, words: &[&[u8]]) -> Option<Reply> {
        let key = words.get(1).copied().unwrap_or_default();
        let owner = topology(self.shards).owner_of(key);
        let node = self.machine.nodes.get(usize::from(owner))?;
        let batch = Batch::of(0, frame(words));
        let response = node.server.shard().borrow_mut().execute_batch(batch, self.world.now());
        let Some(Response::Batch(batch)) = response else { return None };
        decode_reply(&batch.out.to_vec()).ok().flatten().map(|(reply, _)| reply)
    }

    // What is there.

    fn find(&self) -> Result<Found, String> {
        let value = |kind, name: &[u8]| {
            let words = read_words(kind, name);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let reply = self.ask(&words);
            let value = reply.as_ref().and_then(|reply| read_reply(kind, reply));
            value.ok_or_else(|| format!("{} cannot be read: {reply:?}", name.escape_ascii()))
        };
        let mut found = Found { keys: Vec::new(), groups: Vec::new() };
        for (number, peer) in self.peers.iter().enumerate() {
            let mut keys = BTreeMap::new();
            for key in 0..peer.keys() {
                let name = key_name(number, key);
                let value = value(Kind::of(key), &name)?;
                let expire_at_ms = match self.ask(&[b"PEXPIRETIME", &name]) {
                    Some(Reply::Integer(at_ms)) => u64::try_from(at_ms).ok(),
                    _ => None,
                };
                keys.insert(key, State { value, expire_at_ms });
            }
            found.keys.push(keys);
            let group = |group| {
                let names = (0..peer.group_len()).map(|key| group_name(number, group, key));
                names.map(|name| value(Kind::Text, &name)).collect::<Result<Vec<_>, _>>()
            };
            found.groups.push((0..peer.groups()).map(group).collect::<Result<_, _>>()?);
        }
        Ok(found)
    }

    /// Looks at everything after a start, and has the clients begin.
    fn verify(&mut self, sure_ns: u64) -> Result<(), String> {
        let found = self.find()?;
        self.check(&found, sure_ns)?;
        self.mark("durable: restarts looked at");
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let state = |values: &Vec<Value>| State {
                value: values.first().cloned().unwrap_or_default(),
                expire_at_ms: None,
            };
            let groups: Vec<State> = found.groups[number].iter().map(state).collect();
            peer.begin(self.shards, &found.keys[number], &groups);
            peer.wake_ns = 0;
        }
        self.admin.begin();
        Ok(())
    }

    /// Whether this may be there.
    fn check(&self, found: &Found, sure_ns: u64) -> Result<(), String> {
        let now_ms = self.world.now().unix_ms();
        let mut all: Vec<(usize, usize, Cuts)> = Vec::new();
        for (number, peer) in self.peers.iter().enumerate() {
            for lane in 0..peer.lanes.len().saturating_sub(peer.groups()) {
                let own = peer.keys_of(lane).map(|key| (key, found.keys[number][&key].clone()));
                let own: BTreeMap<usize, State> = own.collect();
                let floor = peer.lanes[lane].floor(sure_ns, true);
                let cuts = peer.lanes[lane]
                    .cuts(&own, floor, Span::at(now_ms))
                    .map_err(|why| format!("client {number}, shard {lane}: {why}"))?;
                all.push((number, lane, cuts));
            }
            for (group, values) in found.groups[number].iter().enumerate() {
                let Some(lane) = (!peer.lanes.is_empty()).then(|| peer.group_lane(group)) else {
                    continue;
                };
                let cuts = group_cuts(&peer.lanes[lane], values, sure_ns, now_ms)
                    .map_err(|why| format!("client {number}, group {group}: {why}"))?;
                if self.setup.keep == Keep::Dumps {
                    all.push((number, lane, cuts));
                }
            }
        }
        self.check_order(&all)
    }

    /// What ended before something else was sent is there when that is: on a shard, and in a dump everywhere.
    fn check_order(&self, all: &[(usize, usize, Cuts)]) -> Result<(), String> {
        for &(one, lane, cuts) in all {
            for &(other, other_lane, other_cuts) in all {
                let lanes = (&self.peers[one].lanes[lane], &self.peers[other].lanes[other_lane]);
                let together = self.setup.keep == Keep::Dumps || lane == other_lane;
                if (one, lane) != (other, other_lane)
                    && together
                    && lanes.0.overtakes(cuts, lanes.1, other_cuts)
                {
                    return Err(format!(
                        "client {one} lane {lane} has {cuts:?}, client {other} lane {other_lane} {other_cuts:?}: \
                         what ended before is missing"
                    ));
                }
            }
        }
        Ok(())
    }

    // A disk that changes what it holds.

    /// A bit flips in what was synced: a start says where, or nothing is missing.
    fn rot(&mut self) -> Result<(), String> {
        let number = |name: &String| name.strip_prefix("logs-")?.parse::<u64>().ok();
        let newest = self.world.list_dir(&log_dir()).iter().filter_map(number).max();
        let logs = log_dir().join(format!("logs-{}", newest.unwrap_or(0)));
        let shard = self.rng.index(self.shards);
        let dir = logs.join(format!("shard-{shard}"));
        let used = |world: &World, path: &std::path::Path| {
            let bytes = world.durable_file(path).unwrap_or_default();
            bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
        };
        let before: Vec<_> = self
            .world
            .list_dir(&dir)
            .into_iter()
            .map(|name| (dir.join(&name), used(&self.world, &dir.join(&name))))
            .filter(|(_, used)| *used > 0)
            .collect();
        self.go_on(LIFE_NS / 4)?;
        self.calm()?;
        let written = |path: &std::path::PathBuf, was: usize| used(&self.world, path) > was;
        let grew = before.iter().any(|(path, was)| written(path, *was));
        let Some((path, len)) = self.rng.pick(&before).cloned() else { return Ok(()) };
        let sure_ns = self.crash();
        if !grew {
            return self.restart(sure_ns);
        }
        let head = self.rng.chance(1, 8);
        let at = self.rng.index(if head { len.min(4096) } else { len });
        let bit = self.rng.below(8) as u32;
        if !self.world.flip_bit(&path, at as u64, bit) {
            return Err(format!("{}: no byte {at}", path.display()));
        }
        self.tell(|| format!("bit {bit} of byte {at} of {} flips", path.display()));
        let said = match self.setup.start(&self.world, self.shards) {
            Ok(machine) => {
                self.machine = machine;
                self.loaded()?
            }
            Err(error) => Some(error.to_string()),
        };
        let place = format!("shard-{shard}");
        match said {
            Some(said) if said.contains(&place) && said.contains("position") => {
                self.mark("durable: damage told");
                Ok(())
            }
            Some(said) => Err(format!("damage that is not told well: {said}")),
            None => {
                self.mark("durable: damage without harm");
                let told = format!("byte {at} of {} changed, and", path.display());
                self.verify(sure_ns).map_err(|why| format!("{told} {why}"))
            }
        }
    }

    // Steps.

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let started_ns = self.world.now().mono_ns;
        while !done(self) {
            if self.world.ended().is_some() {
                return Ok(());
            }
            if !self.step()? {
                return Err(format!("stuck in {what}: nothing is to come"));
            }
            if self.world.now().mono_ns - started_ns > STRETCH_MAX_NS {
                return Err(format!("stuck in {what}: {:?}; {}", self.machine.nodes, self.said()));
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
        let wakes = self.peers.iter().map(|peer| peer.wake_ns).chain([self.admin.wake_ns]);
        let due = wakes.enumerate().filter(|(_, wake_ns)| *wake_ns <= now_ns);
        self.ready.extend(due.map(|(index, _)| index));
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

    fn act(&mut self, index: usize) -> Result<(), String> {
        let mut common = Common {
            world: &self.world,
            step: &mut self.step,
            marks: &mut self.marks,
            story: &mut self.story,
            replies: &mut self.replies,
        };
        let Some(peer) = self.peers.get_mut(index) else {
            return self.admin.act(&mut common, &mut self.rng, &self.setup);
        };
        let sights = peer.act(&mut common, &mut self.rng)?;
        for sight in sights {
            self.saw(index, sight)?;
        }
        Ok(())
    }

    /// Notes what a client has seen of another one: with `always` it may not go any more.
    fn saw(&mut self, by: usize, sight: Sight) -> Result<(), String> {
        let strict = self.admin.promise.is_strict();
        let Sight { peer, key, value, span } = sight;
        let writer = &mut self.peers[peer];
        let Some(lane) = (0..self.shards).find(|lane| writer.keys_of(*lane).any(|own| own == key))
        else {
            return Ok(());
        };
        let Some(cut) = writer.lanes[lane].first_cut(key, &value, span) else {
            return Err(format!(
                "client {by} saw what client {peer} never wrote at {key}: {value:?}"
            ));
        };
        if strict {
            writer.lanes[lane].seen = writer.lanes[lane].seen.max(cut);
        }
        Ok(())
    }

    fn pass_time(&mut self) -> bool {
        let before_ns = self.world.now().mono_ns;
        let wakes = self.peers.iter().map(|peer| peer.wake_ns).chain([self.admin.wake_ns]);
        let wake_ns = wakes.min().filter(|wake_ns| *wake_ns != u64::MAX);
        let passed = match (wake_ns, self.world.next_event_time()) {
            (None, None) => false,
            (Some(wake_ns), event) if event.is_none_or(|event| wake_ns < event) => {
                self.world.advance_to(wake_ns.max(before_ns));
                true
            }
            _ => self.world.advance(),
        };
        if self.world.now().mono_ns > before_ns {
            self.steps_at_time = 0;
        }
        passed
    }

    fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        let now_ms = self.world.now().unix_ms();
        if let Some(story) = &mut self.story {
            story.push(format!("{now_ms} {}", what()));
        }
    }

    fn report(&mut self, story: Vec<String>) -> Report {
        Report {
            hash: self.world.trace_hash() ^ self.step.rotate_left(1) ^ self.steps,
            replies: self.replies,
            steps: self.steps,
            virtual_ns: self.world.now().mono_ns - self.started_ns,
            stats: self.world.stats(),
            marks: self.marks.iter().map(|(what, count)| (*what, *count)).collect(),
            story,
        }
    }
}
