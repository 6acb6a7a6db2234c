//! Shards of a service on one thread, each turned by hand: which one, and how far, is the run's
//! choice.
//!
//! A shard's loop is cut where another thread could come between: after the turn and before it
//! announces its sleep. Invariant, checked whenever a shard could have been woken: no shard sleeps
//! while a message waits for it longer than a doorbell takes.

use std::cell::RefCell;
use std::rc::Rc;

use cache::serve::{self, Cache};
use cache::{Shard, ShardConfig};
use engine::driver::Driver;
use engine::driver::Setup as DriverSetup;
use engine::driver::sim::{SimDriver, World};
use engine::error::Error;
use engine::event::{Level, Log};
use engine::net::{Server, Service, Via};
use engine::rng::{Rng, Seed};
use engine::shard::{Handler, Idle, ShardConfig as LoopConfig, ShardCx, calls};

use crate::setup::Setup;

/// The longest a doorbell may take: its delay, that of an overflow, and a batch of events.
const BELL_MAX_NS: u64 = 2_000_000;
/// How soon a stopped shard looks again whether it may go.
const STOP_POLL_NS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its next step is a turn.
    Awake,
    /// It found nothing to do and is about to sleep until this time.
    Drowsy(Option<u64>),
    /// It sleeps.
    Asleep,
}

/// One shard.
pub struct Node<S: Service> {
    /// Its handle.
    pub cx: ShardCx,
    /// Its server.
    pub server: Rc<Server<S>>,
    state: State,
    stopped: bool,
    /// Since when it sleeps on a message.
    overslept: Option<u64>,
}

impl<S: Service> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {:?}, {} connections", self.cx, self.state, self.server.live())
    }
}

impl<S: Service> Node<S> {
    const fn new(cx: ShardCx, server: Rc<Server<S>>) -> Self {
        Self { cx, server, state: State::Awake, stopped: false, overslept: None }
    }
}

/// A shard without a service yet.
fn context(
    world: &World,
    first: usize,
    (index, shards): (usize, usize),
    driver: &DriverSetup,
) -> ShardCx {
    let seed = Seed(world.seed());
    // Another start draws other numbers, as it would with a real source of them.
    let life = world.now().mono_ns << 8;
    let driver = SimDriver::new(world, first + index, driver);
    ShardCx::new(
        index,
        shards,
        Driver::Sim(Box::new(driver)),
        LoopConfig::default(),
        seed.stream("sim.shard", life | (first + index) as u64).next_u64(),
        Log::memory(Level::Error),
    )
}

/// All shards of a run.
pub struct Machine<S: Service> {
    world: World,
    /// The number of its first shard in the world.
    first: usize,
    /// The shards.
    pub nodes: Vec<Node<S>>,
    /// A planted bug: shards sleep without looking once more.
    pub blind: bool,
}

/// Starts shards of a cache that listen.
///
/// # Errors
/// A listener could not be opened; the shards that were started are inside.
pub fn start_cache(world: &World, setup: &Setup) -> (Machine<Cache>, Result<(), Error>) {
    let mut ports = calls::ports(setup.shards, setup.mesh_capacity).into_iter();
    let library = cache::script::Library::default();
    Machine::start(world, setup.shards, &setup.driver, |cx| {
        let index = cx.index();
        let config = ShardConfig {
            index: index as u16,
            topology: setup.addresses.topology.clone(),
            seed: world.seed(),
            library: library.clone(),
            ..ShardConfig::default()
        };
        let shard = Rc::new(RefCell::new(Shard::new(config, cx.now())));
        let port = ports.next().expect("a port for each shard");
        let server = serve::start(cx, shard, port, setup.server.clone());
        let listening = server
            .listen(setup.addresses.shards[index], Via::Shard)
            .and_then(|()| server.listen(setup.addresses.shared, Via::Shared));
        (server, listening)
    })
}

impl<S: Service> Machine<S> {
    /// Starts shards, each with the server that `install` makes.
    ///
    /// # Errors
    /// A shard's listener could not be opened; the shards that were started are inside.
    pub fn start(
        world: &World,
        shards: usize,
        driver: &DriverSetup,
        mut install: impl FnMut(&ShardCx) -> (Rc<Server<S>>, Result<(), Error>),
    ) -> (Self, Result<(), Error>) {
        let mut machine = Self { world: world.clone(), first: 0, nodes: Vec::new(), blind: false };
        for index in 0..shards {
            let cx = context(world, 0, (index, shards), driver);
            cx.enter();
            let (server, listening) = install(&cx);
            cx.leave();
            machine.nodes.push(Node::new(cx, server));
            if listening.is_err() {
                return (machine, listening);
            }
        }
        (machine, Ok(()))
    }

    /// The same with an `install` that leaves no server where it fails; what was started is taken down then. Its shards
    /// have the numbers from `first` on in the world.
    ///
    /// # Errors
    /// What `install` said.
    pub fn try_start(
        world: &World,
        (first, shards): (usize, usize),
        driver: &DriverSetup,
        mut install: impl FnMut(&ShardCx) -> Result<Rc<Server<S>>, Error>,
    ) -> Result<Self, Error> {
        let mut machine = Self { world: world.clone(), first, nodes: Vec::new(), blind: false };
        for index in 0..shards {
            let cx = context(world, first, (index, shards), driver);
            cx.enter();
            let installed = install(&cx);
            if installed.is_err() {
                cx.clear();
            }
            cx.leave();
            match installed {
                Ok(server) => machine.nodes.push(Node::new(cx, server)),
                Err(error) => {
                    machine.end();
                    return Err(error);
                }
            }
        }
        Ok(machine)
    }

    /// Shards that can go on now.
    ///
    /// # Errors
    /// One sleeps while a message waits for it.
    pub fn ready(&mut self, into: &mut Vec<usize>) -> Result<(), String> {
        let now_ns = self.world.now().mono_ns;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.state != State::Asleep {
                into.push(index);
                continue;
            }
            if !node.server.has_messages() {
                node.overslept = None;
            } else if now_ns - *node.overslept.get_or_insert(now_ns) > BELL_MAX_NS {
                return Err(format!(
                    "lost wake-up: shard {index} sleeps while messages wait for it"
                ));
            }
            if self.world.is_ready(self.first + index) {
                into.push(index);
            }
        }
        Ok(())
    }

    /// One step of a shard.
    pub fn step(&mut self, index: usize, rng: &mut Rng) {
        let node = &mut self.nodes[index];
        let cx = &node.cx;
        cx.enter();
        node.state = match node.state {
            State::Asleep => {
                cx.driver().turn(false, None);
                cx.unpark();
                node.overslept = None;
                State::Awake
            }
            State::Awake => match cx.turn_picking(|ready| rng.index(ready)) {
                Idle::Busy => {
                    cx.driver().turn(false, None);
                    State::Awake
                }
                Idle::Until(deadline) => State::Drowsy(deadline),
                Idle::Stopped => {
                    node.stopped = true;
                    State::Drowsy(Some(self.world.now().mono_ns + STOP_POLL_NS))
                }
            },
            State::Drowsy(deadline) => sleep(cx, &self.world, deadline, self.blind),
        };
        cx.leave();
    }

    /// Tells every shard to stop.
    pub fn stop(&self, index: usize) {
        let cx = &self.nodes[index].cx;
        cx.enter();
        cx.stop();
        cx.leave();
    }

    /// Whether all shards have finished.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.nodes.iter().all(|node| node.stopped)
    }

    /// Operations in flight on all shards.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.nodes.iter().map(|node| node.cx.driver().in_flight()).sum()
    }

    /// Drops all tasks and servers, each with its shard entered: what is dropped may wake tasks of it.
    pub fn end(&mut self) {
        self.clear();
        for Node { cx, server, .. } in self.nodes.drain(..) {
            cx.enter();
            drop(server);
            cx.clear();
            cx.leave();
        }
    }

    /// Drops all tasks, as a shard does at its end.
    pub fn clear(&self) {
        for node in &self.nodes {
            node.cx.enter();
            node.cx.clear();
            node.cx.leave();
        }
    }
}

fn sleep(cx: &ShardCx, world: &World, deadline: Option<u64>, blind: bool) -> State {
    let may_sleep = cx.park();
    if !may_sleep && !blind {
        cx.driver().turn(false, None);
        cx.unpark();
        return State::Awake;
    }
    let now_ns = world.now().mono_ns;
    let timeout_ns = deadline.map(|deadline| deadline.saturating_sub(now_ns));
    cx.driver().turn(true, timeout_ns);
    if cx.driver().has_pending_events() || timeout_ns == Some(0) {
        cx.unpark();
        return State::Awake;
    }
    State::Asleep
}
