//! The course of a run: two machines, load, and something that happens, over and over; rest, and a look at both.
//!
//! Next: `chaos` for what happens.

use std::collections::BTreeMap;

use cache::work::{Batch, Response};
use engine::driver::sim::{Faults, MACHINE_SHARDS, World};
use engine::rng::{Rng, Seed};
use wire::resp::{Reply, decode_reply};

use super::reader::{Epoch, Reader, Seen};
use super::setup::Setup;
use super::side::Side;
use super::wild::Wild;
use crate::command::frame;
use crate::durable::peer::{Common, Peer, group_cuts, group_name, key_name};
use crate::durable::setup::topology;
use crate::durable::value::{Kind, State, Value, read_reply, read_words};
use crate::op::Span;
use crate::run::{Failure, Options, Report};

/// Steps without time passing before a run is a livelock.
const STEPS_PER_TIME_MAX: u32 = 200_000;
/// Longest stretch after which somebody must be stuck.
const STRETCH_MAX_NS: u64 = 200_000_000_000;
/// How long the machines run between two things that happen, at most.
const LIFE_NS: u64 = 400_000_000;
/// Looks at what a key holds before somebody must have forgotten it.
const LOOKS_MAX: u32 = 2_000;

pub(super) struct Run {
    pub(super) world: World,
    pub(super) setup: Setup,
    pub(super) sides: [Side; 2],
    /// Which of them is the master.
    pub(super) master: usize,
    pub(super) peers: Vec<Peer>,
    pub(super) wilds: Vec<Wild>,
    pub(super) readers: Vec<Reader>,
    pub(super) past: Vec<Epoch>,
    pub(super) seen: Seen,
    /// The replica may be a master already.
    pub(super) takes_over: bool,
    /// The replica's own log may have a part of a data set, which it shows until it has the whole again.
    pub(super) in_parts: bool,
    pub(super) rng: Rng,
    steps: u64,
    step: u64,
    steps_at_time: u32,
    replies: u64,
    started_ns: u64,
    ready: Vec<usize>,
    marks: BTreeMap<&'static str, u64>,
    story: Option<Vec<String>>,
}

/// How much of what was written must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// Nothing: it was in memory.
    Nothing,
    /// A beginning.
    Any,
    /// What was waited for.
    Waited,
    /// What was answered.
    Answered,
}

/// What all keys hold.
type Found = (Vec<BTreeMap<usize, State>>, Vec<Vec<Vec<Value>>>);

/// Runs a seed.
///
/// # Errors
/// A check failed.
pub(crate) fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let setup = Setup::draw(seed);
    let world = World::new(seed, Faults::none());
    let mut rng = Seed(seed).stream("sim.schedule", 0);
    let story = options.story.then(Vec::new);
    let failure = |what: String, recent, story| Failure { seed, options, what, recent, story };
    let doors = setup.doors(0);
    let mut start = |side: usize, follows| {
        let shards = rng.between(1, 3) as usize;
        let machine = setup.start(&world, (side, shards), follows);
        let machine = machine.map_err(|error| error.to_string())?;
        Ok::<_, String>(Side { machine, shards, is_up: true })
    };
    let sides = start(0, None).and_then(|one| Ok([one, start(1, Some(doors.port))?]));
    let sides = sides.map_err(|why| failure(why, Vec::new(), Vec::new()))?;
    let mut run = Run {
        peers: (0..setup.shape.clients).map(|at| Peer::new(at, setup.shape, doors)).collect(),
        wilds: (0..setup.wilds).map(|_| Wild::new(doors)).collect(),
        readers: (0..setup.readers).map(|_| Reader::new()).collect(),
        past: Vec::new(),
        seen: Seen::default(),
        takes_over: false,
        in_parts: false,
        started_ns: world.now().mono_ns,
        world,
        setup,
        sides,
        master: 0,
        rng,
        steps: 0,
        step: 0,
        steps_at_time: 0,
        replies: 0,
        ready: Vec::new(),
        marks: BTreeMap::new(),
        story,
    };
    let course = run.course();
    run.sides.iter_mut().for_each(|side| side.machine.end());
    let story = run.story.take().unwrap_or_default();
    match course {
        Ok(()) => Ok(run.report(story)),
        Err(what) => {
            let from = story.len().saturating_sub(6_000);
            let shards = run.sides.iter().map(|side| side.shards).collect::<Vec<_>>();
            let what = format!("{what}\n{shards:?} {:?}", run.setup);
            Err(failure(what, run.world.recent(), story[from..].to_vec()))
        }
    }
}

impl Run {
    fn course(&mut self) -> Result<(), String> {
        for side in 0..2 {
            self.loaded(side)?;
        }
        self.begin_epoch(Promise::Any)?;
        self.world.set_faults(self.setup.faults.clone());
        for _ in 0..self.setup.events {
            let life_ns = self.rng.between(1, LIFE_NS);
            let life_ns = if self.rng.chance(1, 8) { life_ns * 4 } else { life_ns };
            self.go_on(life_ns)?;
            self.happen()?;
        }
        self.go_on(LIFE_NS / 2)?;
        self.rest_and_compare()?;
        self.end()
    }

    pub(super) fn go_on(&mut self, ns: u64) -> Result<(), String> {
        let end_ns = self.world.now().mono_ns + ns;
        self.until("the load", |run| run.world.now().mono_ns >= end_ns)
    }

    /// The exit code of a machine's process, if that has ended.
    pub(super) fn ended(&self, side: usize) -> Option<i32> {
        self.world.ended_on(side)
    }

    /// Waits until a machine has loaded what it had.
    pub(super) fn loaded(&mut self, side: usize) -> Result<(), String> {
        self.until("a start", |run| {
            let asked = run.ask_inside(side, &[b"GET", b"x"]);
            run.ended(side).is_some() || matches!(asked, Some(Reply::Null | Reply::Bulk(_)))
        })
    }

    /// Runs a command on the shard that owns its key, from within.
    fn ask_inside(&self, side: usize, words: &[&[u8]]) -> Option<Reply> {
        let key = words.get(1).copied().unwrap_or_default();
        let side = &self.sides[side];
        let owner = topology(side.shards).owner_of(key);
        let node = side.machine.nodes.get(usize::from(owner))?;
        let batch = Batch::of(0, frame(words));
        let response = node.server.shard().borrow_mut().execute_batch(batch, self.world.now());
        let Some(Response::Batch(batch)) = response else { return None };
        decode_reply(&batch.out.to_vec()).ok().flatten().map(|(reply, _)| reply)
    }

    fn value_of(&mut self, kind: Kind, name: &[u8]) -> Result<Value, String> {
        let words = read_words(kind, name);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        for _ in 0..LOOKS_MAX {
            // Nothing while a command over several shards has the key.
            if let Some(reply) = self.ask_inside(self.master, &words) {
                let value = read_reply(kind, &reply);
                return value.ok_or_else(|| format!("{}: {reply:?}", name.escape_ascii()));
            }
            self.step()?;
        }
        Err(format!("{} stays locked", name.escape_ascii()))
    }

    /// What the master holds.
    fn find(&mut self) -> Result<Found, String> {
        let shape = self.setup.shape;
        let mut found = (Vec::new(), Vec::new());
        for number in 0..self.peers.len() {
            let mut keys = BTreeMap::new();
            for key in 0..shape.keys {
                let name = key_name(number, key);
                let value = self.value_of(Kind::of(key), &name)?;
                let expire_at_ms = match self.ask_inside(self.master, &[b"PEXPIRETIME", &name]) {
                    Some(Reply::Integer(at_ms)) => u64::try_from(at_ms).ok(),
                    _ => None,
                };
                keys.insert(key, State { value, expire_at_ms });
            }
            found.0.push(keys);
            let mut groups = Vec::new();
            for group in 0..shape.groups {
                let names = (0..shape.group_len).map(|key| group_name(number, group, key));
                let values = names.map(|name| self.value_of(Kind::Text, &name));
                groups.push(values.collect::<Result<Vec<_>, _>>()?);
            }
            found.1.push(groups);
        }
        Ok(found)
    }

    /// Another machine is the master, or has begun anew: what it holds is looked at, and clients begin with that.
    pub(super) fn begin_epoch(&mut self, promise: Promise) -> Result<(), String> {
        let found = self.find()?;
        self.check(&found, promise)?;
        let (shards, doors) = (self.sides[self.master].shards, self.setup.doors(self.master));
        let before = self.shards_of_epoch();
        let lanes: Vec<_> = self.peers.iter().map(|peer| peer.lanes.clone()).collect();
        if lanes.iter().any(|lanes| !lanes.is_empty()) {
            self.past.push(Epoch { lanes, shards: before });
        }
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let state = |values: &Vec<Value>| State {
                value: values.first().cloned().unwrap_or_default(),
                expire_at_ms: None,
            };
            let groups: Vec<State> = found.1[number].iter().map(state).collect();
            peer.doors = doors;
            peer.begin(shards, &found.0[number], &groups);
            peer.wake_ns = 0;
        }
        self.wilds.iter_mut().for_each(|wild| wild.begin(doors));
        self.readers.iter_mut().for_each(|reader| reader.wake_ns = 0);
        Ok(())
    }

    /// Shards of the master that clients wrote to until now.
    pub(super) fn shards_of_epoch(&self) -> usize {
        let groups = self.setup.shape.groups;
        self.peers.first().map_or(0, |peer| peer.lanes.len().saturating_sub(groups))
    }

    /// Whether this may be there.
    fn check(&mut self, (keys, groups): &Found, promise: Promise) -> Result<(), String> {
        if promise == Promise::Nothing {
            return Ok(());
        }
        let now = self.world.now();
        let sure_ns = if promise == Promise::Answered { now.mono_ns } else { 0 };
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let lanes = peer.lanes.len();
            if promise == Promise::Waited {
                peer.lanes.iter_mut().for_each(|lane| lane.seen = lane.seen.max(lane.waited));
            }
            for lane in 0..lanes.saturating_sub(groups[number].len()) {
                let own = peer.keys_of(lane).map(|key| (key, keys[number][&key].clone()));
                let own: BTreeMap<usize, State> = own.collect();
                let floor = peer.lanes[lane].floor(sure_ns, true);
                peer.lanes[lane]
                    .cuts(&own, floor, Span::at(now.unix_ms()))
                    .map_err(|why| format!("{promise:?}: client {number}, lane {lane}: {why}"))?;
            }
            for (group, values) in groups[number].iter().enumerate().filter(|_| lanes > 0) {
                let lane = &peer.lanes[peer.group_lane(group)];
                group_cuts(lane, values, sure_ns, now.unix_ms())
                    .map_err(|why| format!("{promise:?}: client {number}, group {group}: {why}"))?;
            }
        }
        Ok(())
    }

    // Steps.

    pub(super) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let started_ns = self.world.now().mono_ns;
        while !done(self) {
            if !self.step()? {
                return Err(format!("stuck in {what}: nothing is to come"));
            }
            if self.world.now().mono_ns - started_ns > STRETCH_MAX_NS {
                let said = [self.said(0), self.said(1)];
                let nodes = self.sides.iter().map(|side| &side.machine.nodes);
                return Err(format!("stuck in {what}: {:?}; {said:?}", nodes.collect::<Vec<_>>()));
            }
        }
        Ok(())
    }

    fn wakes(&self) -> impl Iterator<Item = u64> {
        let peers = self.peers.iter().map(|peer| peer.wake_ns);
        let wilds = self.wilds.iter().map(|wild| wild.wake_ns);
        peers.chain(wilds).chain(self.readers.iter().map(|reader| reader.wake_ns))
    }

    /// One step of a shard, of a client, or of the world; false when nothing is to come.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        self.steps += 1;
        self.steps_at_time += 1;
        if self.steps_at_time > STEPS_PER_TIME_MAX {
            return Err("livelock".into());
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        for side in 0..2 {
            let from = ready.len();
            // A process that has ended itself goes on no more.
            if self.ended(side).is_none() {
                self.sides[side].machine.ready(&mut ready)?;
            }
            ready[from..].iter_mut().for_each(|index| *index += side * MACHINE_SHARDS);
        }
        let shards = ready.len();
        let now_ns = self.world.now().mono_ns;
        let due = self.wakes().enumerate().filter(|(_, wake_ns)| *wake_ns <= now_ns);
        ready.extend(due.map(|(index, _)| index));
        self.ready = ready;
        let soon = self.world.next_event_time().is_some_and(|next| next < now_ns + 100_000);
        if self.ready.is_empty() || (soon && self.rng.chance(1, 8)) {
            return Ok(self.pass_time());
        }
        let pick = self.rng.index(self.ready.len());
        let index = self.ready[pick];
        if pick < shards {
            let (side, shard) = (index / MACHINE_SHARDS, index % MACHINE_SHARDS);
            self.sides[side].machine.step(shard, &mut self.rng);
            return Ok(true);
        }
        self.act(index)?;
        Ok(true)
    }

    fn act(&mut self, index: usize) -> Result<(), String> {
        let seen = self.known();
        let mut common = Common {
            world: &self.world,
            step: &mut self.step,
            marks: &mut self.marks,
            story: &mut self.story,
            replies: &mut self.replies,
        };
        let (peers, wilds) = (self.peers.len(), self.wilds.len());
        if let Some(peer) = self.peers.get_mut(index) {
            // What they saw of each other is the other kind of run's business.
            return peer.act(&mut common, &mut self.rng).map(drop);
        }
        if let Some(wild) = self.wilds.get_mut(index - peers) {
            return wild.act(&mut common, &mut self.rng, &self.setup);
        }
        let replica = 1 - self.master;
        let place = (self.setup.doors(replica), self.sides[replica].shards);
        let known = (self.setup.shape, &seen);
        let reader = &mut self.readers[index - peers - wilds];
        let sight = reader.act(&mut common, &mut self.rng, place, known)?;
        sight.map_or(Ok(()), |sight| self.saw(sight))
    }

    fn pass_time(&mut self) -> bool {
        let before_ns = self.world.now().mono_ns;
        let wake_ns = self.wakes().min().filter(|wake_ns| *wake_ns != u64::MAX);
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

    pub(super) fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
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
