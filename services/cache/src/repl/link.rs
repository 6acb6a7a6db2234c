//! The link to a master: one task of the first shard.
//!
//! Connect, shake hands, ask for what is missing (PSYNC), take the whole data set if the master has no less, apply what
//! comes, tell each second how far that is. When the link ends, for whatever reason, it is tried again each second, from
//! where it ended.
//!
//! Invariant: the offset is where what was taken ends, and what was taken is applied, whatever becomes of the link: nothing is
//! applied twice or left out. A transaction that has not ended when the link does goes on over the next one.
//! Next: `sync.rs` for the whole data set, `apply.rs` for commands.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::error::{Error, Kind};
use engine::exec::sync::within;
use engine::net::Server;
use engine::shard::ShardCx;

use super::{Common, Link, Master, apply::Applier, sync, wire::Wire, wire::silent};
use crate::{
    admin::Ask,
    aof,
    flow::group::{Group, Place, Setup, Shared, Target},
    serve::Cache,
    work::{Op, Request, Response},
};

const SECOND_NS: u64 = 1_000_000_000;
/// How often the log is looked at while it loads.
const LOOK_NS: u64 = SECOND_NS / 10;
/// How often a failure that goes on is told.
const TELL_NS: u64 = 60 * SECOND_NS;

/// What is known of a master's history, over several links.
struct History {
    /// Its name, and how far it was applied; nothing before the first data set.
    place: Option<(String, u64)>,
    applier: Applier,
    /// The same for a master whose shards give flows.
    flows: Option<Known>,
    /// A data set has come in part: what there is, is nothing that any master had.
    is_partial: bool,
}

/// Where the flows of a master are.
struct Known {
    replid: String,
    targets: Vec<Target>,
    places: Vec<Place>,
    shared: Arc<Shared>,
}

/// One link.
struct Following<'a> {
    server: &'a Rc<Server<Cache>>,
    cx: ShardCx,
    common: &'a Common,
    history: &'a mut History,
    generation: u64,
    timeout_ns: u64,
}

/// Follows whoever is to be followed.
pub(crate) async fn run(server: Rc<Server<Cache>>) {
    let cx = server.cx().clone();
    let common: Arc<Common> = Arc::clone(&server.shard().borrow().repl);
    let mut history =
        History { place: None, applier: Applier::new(), flows: None, is_partial: false };
    let (mut told, mut told_ns) = (String::new(), 0);
    loop {
        let changed = server.service().repl().changed.notified();
        let Some(master) = common.facts().master else {
            // What it was does not matter to a master, and to a replica of another one only as a whole.
            (history.place, history.applier) = (None, Applier::new());
            (history.flows, history.is_partial) = (None, false);
            changed.await;
            continue;
        };
        if server.shard().borrow().is_loading() || server.service().repl().is_leaving.get() {
            cx.sleep(LOOK_NS).await;
            continue;
        }
        let generation = common.generation();
        let timeout_ns = number(&server, "repl-timeout").saturating_mul(SECOND_NS);
        let mut following = Following {
            server: &server,
            cx: cx.clone(),
            common: &common,
            history: &mut history,
            generation,
            timeout_ns,
        };
        let ended = following.follow(&master).await;
        common.stage(Link::Connect, cx.now());
        history.applier.begin_anew();
        let is_other = common.generation() != generation;
        if is_other {
            history.flows = None;
        }
        if !is_other || (history.is_partial && common.facts().master.is_some()) {
            // Clients are not shown a part of a data set.
            tell(&server, false, history.is_partial, false).await;
        }
        if is_other {
            continue;
        }
        if let Err(error) = ended {
            let (text, now) = (error.to_string(), cx.now());
            if text != told || now.mono_ns.saturating_sub(told_ns) > TELL_NS {
                let (what, master) = ("no link to the master", master.text());
                cx.log().warn("cache", now, what, &[("master", &master), ("why", &text)]);
                (told, told_ns) = (text, now.mono_ns);
            }
        }
        within(changed, cx.sleep(SECOND_NS)).await;
    }
}

fn number(server: &Server<Cache>, name: &str) -> u64 {
    server.shard().borrow().settings.get(name).parse().unwrap_or(60)
}

/// Tells all shards how the link is.
async fn tell(server: &Rc<Server<Cache>>, up: bool, loads: bool, has_time: bool) {
    let count = server.shard().borrow().count;
    let op = || Op::Admin(Ask::Link { up, loads, has_time });
    let request = |shard| (shard, Request::Op { ticket: 0, op: op(), unlock: false });
    Cache::exchange(Rc::clone(server), (0..count).map(request).collect()).await;
}

/// The first address of a master. A name is looked up by the system, for which this shard waits.
fn resolve(master: &Master) -> Result<SocketAddr, Error> {
    let name = || master.text();
    let mut found = (master.host.as_str(), master.port)
        .to_socket_addrs()
        .map_err(|error| Error::io("resolve", error, name()))?;
    found.next().ok_or_else(|| Error::new("resolve", Kind::NotFound, name()))
}

fn refused(what: &str, answer: &str) -> Error {
    Error::new("replicate", Kind::Forbidden, format!("{what}: the master answered `{answer}`"))
}

/// What the master gives.
enum Offer {
    /// Everything, and what comes after this place of this history.
    Full(String, u64),
    /// What comes next.
    Rest,
}

impl Following<'_> {
    fn setting(&self, name: &str) -> String {
        self.server.shard().borrow().settings.get(name).to_owned()
    }

    /// AUTH, if there is a password.
    fn login(&self) -> Vec<Vec<u8>> {
        let (user, password) = (self.setting("masteruser"), self.setting("masterauth"));
        if password.is_empty() {
            return Vec::new();
        }
        let words = ["AUTH".into(), user, password].into_iter();
        words.filter(|word| !word.is_empty()).map(String::into_bytes).collect()
    }

    /// The port that the master is told.
    fn port(&self) -> u16 {
        let announced = self.setting("replica-announce-port").parse().unwrap_or(0);
        let own = self.server.shard().borrow().config.tcp_port;
        if announced == 0 { own } else { announced }
    }

    /// Whether another master is to be followed.
    fn is_over(&self) -> bool {
        self.common.generation() != self.generation
    }

    async fn follow(&mut self, master: &Master) -> Result<(), Error> {
        self.common.stage(Link::Connecting, self.cx.now());
        let addr = resolve(master)?;
        let mut wire = Wire::connect(&self.cx, addr, self.timeout_ns).await?;
        self.shake_hands(&mut wire).await?;
        if let Some(offer) = self.ask_for_flows(&mut wire, addr, false).await? {
            return self.follow_flows(&mut wire, addr, offer).await;
        }
        self.history.flows = None;
        match self.ask(&mut wire).await? {
            Offer::Rest => {
                if let Some((_, offset)) = &self.history.place {
                    self.common.read.store(*offset, Relaxed);
                }
                self.common.partial_syncs.fetch_add(1, Relaxed);
            }
            Offer::Full(replid, offset) => {
                self.take_all(&mut wire, &replid, offset).await?;
                self.common.full_syncs.fetch_add(1, Relaxed);
            }
        }
        if self.is_over() {
            return Ok(());
        }
        self.common.heard(self.cx.now());
        self.common.stage(Link::Connected, self.cx.now());
        tell(self.server, true, false, false).await;
        let master = master.text();
        let pairs: [(&str, &dyn std::fmt::Display); 1] = [("master", &master)];
        self.cx.log().info("cache", self.cx.now(), "follows its master", &pairs);
        self.stream(&mut wire).await
    }

    async fn shake_hands(&self, wire: &mut Wire) -> Result<(), Error> {
        let answer = wire.ask(&[b"PING"]).await?;
        let may = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !may.iter().any(|good| answer.starts_with(good)) {
            return Err(refused("PING", &answer));
        }
        let login = self.login();
        if !login.is_empty() {
            let words: Vec<&[u8]> = login.iter().map(Vec::as_slice).collect();
            let answer = wire.ask(&words).await?;
            if !answer.starts_with('+') {
                return Err(refused("AUTH", &answer).remedied("see masterauth and masteruser"));
            }
        } else if answer.starts_with("-NOAUTH") {
            return Err(refused("PING", &answer).remedied("give the password as masterauth"));
        }
        let port = self.port().to_string();
        let ip = self.setting("replica-announce-ip");
        let mut lines: Vec<Vec<&[u8]>> =
            vec![vec![b"REPLCONF", b"listening-port", port.as_bytes()]];
        if !ip.is_empty() {
            lines.push(vec![b"REPLCONF", b"ip-address", ip.as_bytes()]);
        }
        lines.push(vec![b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"]);
        for words in lines {
            // One that does not know them does without; what is missing is told by PSYNC.
            wire.ask(&words).await?;
        }
        Ok(())
    }

    /// Asks for what is missing.
    async fn ask(&mut self, wire: &mut Wire) -> Result<Offer, Error> {
        let (replid, from) = match &self.history.place {
            Some((replid, offset)) => (replid.clone(), (offset + 1).to_string()),
            None => ("?".into(), "-1".into()),
        };
        let answer = wire.ask(&[b"PSYNC", replid.as_bytes(), from.as_bytes()]).await?;
        let words: Vec<&str> = answer.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["+FULLRESYNC", replid, offset] => {
                let offset = offset.parse().map_err(|_| refused("PSYNC", &answer))?;
                Ok(Offer::Full((*replid).into(), offset))
            }
            ["+CONTINUE", more @ ..] => {
                let Some((replid, _)) = &mut self.history.place else {
                    return Err(refused("PSYNC", &answer));
                };
                if let [new, ..] = more {
                    // The master was a replica itself, or has begun a history of its own.
                    *replid = (*new).into();
                }
                let replid = replid.clone();
                self.common.lock().replid = replid;
                Ok(Offer::Rest)
            }
            _ => Err(refused("PSYNC", &answer)),
        }
    }

    /// Takes the whole data set.
    async fn take_all(&mut self, wire: &mut Wire, replid: &str, offset: u64) -> Result<(), Error> {
        // If it does not come whole, it has to come again.
        self.history.place = None;
        {
            let mut facts = self.common.lock();
            (facts.sync_bytes, facts.sync_read) = (None, 0);
        }
        self.common.stage(Link::Sync, self.cx.now());
        let name = format!("temp-replica-{}.rdb", std::process::id());
        let path = PathBuf::from(self.setting("dir")).join(name);
        let received = sync::receive(wire, &self.cx, &path, self.common, || self.is_over()).await;
        let loaded = match received {
            Ok(true) => self.load(wire, &path).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        // It may not be there.
        let _ = std::fs::remove_file(&path);
        loaded?;
        if self.is_over() {
            return Ok(());
        }
        self.history.place = Some((replid.to_owned(), offset));
        self.common.offset.store(offset, Relaxed);
        self.common.read.store(offset, Relaxed);
        self.common.lock().replid = replid.to_owned();
        Ok(())
    }

    /// Loads the data set on all shards, and tells the master meanwhile that we are there.
    async fn load(&mut self, wire: &Wire, path: &std::path::Path) -> Result<(), Error> {
        tell(self.server, false, true, false).await;
        self.history.applier = Applier::new();
        let mut loading = Box::pin(sync::load(self.server, path, &mut self.history.applier));
        let loaded = loop {
            match within(loading.as_mut(), self.cx.sleep(SECOND_NS)).await {
                Some(loaded) => break loaded,
                // If nobody is there, the next read tells.
                None => drop(wire.blank().await),
            }
        };
        drop(loading);
        // What could not be loaded is not there in part.
        self.history.is_partial = false;
        if !self.is_over() {
            tell(self.server, false, false, false).await;
        }
        loaded
    }

    /// Applies what comes, and tells how far that is.
    async fn stream(&mut self, wire: &mut Wire) -> Result<(), Error> {
        let mut tell_at_ns = self.cx.now().mono_ns;
        let (mut heard_ns, mut is_told) = (tell_at_ns, false);
        while !self.is_over() {
            self.apply(wire).await?;
            let asked = std::mem::take(&mut self.server.shard().borrow_mut().role.asked);
            let now = self.cx.now();
            if asked || now.mono_ns >= tell_at_ns {
                if !asked {
                    // A master that sent its data set as it made it waits for this before it goes on.
                    tell_at_ns = now.mono_ns + if is_told { SECOND_NS } else { LOOK_NS };
                }
                let offset = self.common.offset().to_string();
                wire.send(&[b"REPLCONF", b"ACK", offset.as_bytes()]).await?;
            }
            if wire.more(tell_at_ns.saturating_sub(now.mono_ns).clamp(1, LOOK_NS)).await? {
                (heard_ns, is_told) = (self.cx.now().mono_ns, true);
                self.common.heard(self.cx.now());
            } else if self.cx.now().mono_ns.saturating_sub(heard_ns) > self.timeout_ns {
                return Err(silent("the master"));
            }
        }
        Ok(())
    }

    /// Applies what has come.
    async fn apply(&mut self, wire: &mut Wire) -> Result<(), Error> {
        let History { place: Some((_, offset)), applier, .. } = &mut *self.history else {
            return Ok(());
        };
        let (common, generation) = (self.common, self.generation);
        let is_over = || common.generation() != generation;
        match applier.apply(self.server, &wire.buffer, is_over).await {
            Ok(applied) => {
                *offset += applied.taken as u64;
                common.read.store(*offset, Relaxed);
                if !applied.waits {
                    common.offset.store(*offset, Relaxed);
                }
                wire.buffer.drain(..applied.taken);
                Ok(())
            }
            Err(error) => {
                // How far it came is not known.
                self.history.place = None;
                Err(error)
            }
        }
    }
}

/// What a master whose shards give flows tells of them.
struct Flows {
    replid: String,
    databases: u16,
    targets: Vec<Target>,
    /// Where each may begin, if everything was asked for.
    places: Vec<Place>,
}

impl Flows {
    /// `FLOWS <replid> <databases>`, and for each shard `<history>:<offset>:<port>`.
    fn parse(answer: &str, addr: SocketAddr) -> Option<Self> {
        let mut words = answer.strip_prefix("+FLOWS ")?.split_ascii_whitespace();
        let replid = words.next()?.to_owned();
        let databases = words.next()?.parse().ok()?;
        let (mut targets, mut places) = (Vec::new(), Vec::new());
        for word in words {
            let mut parts = word.split(':');
            let history = parts.next()?.parse().ok()?;
            let at = parts.next()?.parse().ok()?;
            let port = parts.next()?.parse().ok()?;
            targets.push(Target { addr: SocketAddr::new(addr.ip(), port), history });
            places.push(Place { at, ..Place::default() });
        }
        (!targets.is_empty()).then_some(Self { replid, databases, targets, places })
    }
}

impl Following<'_> {
    /// Asks whether the master's shards give flows, and, for everything, from where on; nothing when they do not.
    async fn ask_for_flows(
        &self,
        wire: &mut Wire,
        addr: SocketAddr,
        is_full: bool,
    ) -> Result<Option<Flows>, Error> {
        let words: [&[u8]; 2] = [b"REPLFLOWS", b"FULL"];
        let answer = wire.ask(words.get(..1 + usize::from(is_full)).unwrap_or_default()).await?;
        if answer.to_ascii_lowercase().contains("unknown command") {
            return Ok(None);
        }
        let flows = Flows::parse(&answer, addr).ok_or_else(|| refused("REPLFLOWS", &answer))?;
        let own = self.server.shard().borrow().store().config().databases;
        if flows.databases > own {
            let context =
                format!("the master has {} databases, this server {own}", flows.databases);
            return Err(Error::new("replicate", Kind::Invalid, context)
                .remedied("start this server with as many --databases as the master"));
        }
        Ok(Some(flows))
    }

    /// Follows a master whose shards give flows.
    async fn follow_flows(
        &mut self,
        wire: &mut Wire,
        addr: SocketAddr,
        offer: Flows,
    ) -> Result<(), Error> {
        self.history.place = None;
        let known = self.history.flows.take();
        let is_known =
            |known: &Known| known.replid == offer.replid && known.targets == offer.targets;
        if let Some(known) = known.filter(is_known) {
            let group = self.group(offer, known.places, known.shared, false);
            if self.read_flows(wire, group).await? {
                return Ok(());
            }
        }
        let Some(offer) = self.ask_for_flows(wire, addr, true).await? else {
            return Err(refused("REPLFLOWS", "nothing"));
        };
        let places = offer.places.clone();
        let group = self.group(offer, places, Arc::default(), true);
        self.read_flows(wire, group).await.map(drop)
    }

    fn group(
        &self,
        offer: Flows,
        places: Vec<Place>,
        shared: Arc<Shared>,
        is_full: bool,
    ) -> (String, Arc<Group>) {
        let setup = Setup {
            targets: offer.targets,
            databases: offer.databases,
            login: self.login(),
            port: self.port(),
            timeout_ns: self.timeout_ns,
            generation: self.generation,
            is_full,
        };
        (offer.replid, Arc::new(Group::new(setup, places, shared)))
    }

    /// Reads flows until they end; false when everything has to come again before anything was applied.
    async fn read_flows(
        &mut self,
        wire: &mut Wire,
        (replid, group): (String, Arc<Group>),
    ) -> Result<bool, Error> {
        let count = usize::from(self.server.shard().borrow().count);
        *self.server.service().repl().group.borrow_mut() = Some(Arc::clone(&group));
        for flow in 0..group.setup.targets.len() {
            let group = Arc::clone(&group);
            let shard = u16::try_from(flow % count).unwrap_or(0);
            Cache::ask(self.server, shard, Request::Flow { group, flow }).await;
        }
        let watched = self.watch(wire, &group, &replid).await;
        group.end();
        while !group.has_ended() {
            self.cx.sleep(LOOK_NS / 50).await;
        }
        *self.server.service().repl().group.borrow_mut() = None;
        self.common.offset.store(group.offset(), Relaxed);
        if group.is_ready() {
            self.history.is_partial = false;
        }
        if !group.misses() && group.is_ready() {
            self.history.flows = Some(Known {
                replid,
                targets: group.setup.targets.clone(),
                places: group.places(),
                shared: Arc::clone(&group.shared),
            });
        }
        watched?;
        if self.is_over() {
            return Ok(true);
        }
        if group.misses() && !group.setup.is_full && !group.is_ready() {
            return Ok(false);
        }
        let why = group.why().unwrap_or_else(|| "the link has ended".into());
        Err(Error::new("replicate", Kind::Closed, why))
    }

    /// Watches flows until they end.
    async fn watch(&mut self, wire: &mut Wire, group: &Group, replid: &str) -> Result<(), Error> {
        let is_full = group.setup.is_full;
        while !group.are_connected() {
            if self.is_over() || group.ends() {
                return Ok(());
            }
            self.cx.sleep(LOOK_NS / 50).await;
        }
        if is_full {
            self.common.stage(Link::Sync, self.cx.now());
            // What is logged of this has no time.
            if self.server.shard().borrow().log_fails() {
                // What there is stays and is shown, instead of nothing.
                return Err(super::apply::log_failed());
            }
            tell(self.server, false, true, false).await;
            self.history.is_partial = true;
            self.history.applier = Applier::new();
            sync::run(self.server, &mut self.history.applier, &[b"FLUSHALL"]).await?;
            sync::run(self.server, &mut self.history.applier, &[b"FUNCTION", b"FLUSH"]).await?;
        }
        self.common.clock_ms.store(0, Relaxed);
        tell(self.server, false, is_full, true).await;
        self.common.lock().replid = replid.to_owned();
        self.common.heard(self.cx.now());
        group.begin();
        let mut is_up = false;
        while !self.is_over() && !group.ends() {
            if !is_up && group.is_ready() {
                is_up = true;
                let syncs = &self.common;
                let count = if is_full { &syncs.full_syncs } else { &syncs.partial_syncs };
                count.fetch_add(1, Relaxed);
                self.common.stage(Link::Connected, self.cx.now());
                tell(self.server, true, false, true).await;
                let (flows, cx) = (group.setup.targets.len(), &self.cx);
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("flows", &flows), ("full", &is_full)];
                cx.log().info("cache", cx.now(), "follows its master's shards", &pairs);
            }
            let offset = group.offset();
            self.common.offset.store(offset, Relaxed);
            self.common.read.store(offset, Relaxed);
            self.common.heard_s.fetch_max(group.heard_s(), Relaxed);
            self.common.clock_ms.store(group.clock_ms(), Relaxed);
            // Nothing is said here; but its end ends the flows.
            wire.more(LOOK_NS / 5).await?;
            wire.buffer.clear();
        }
        Ok(())
    }
}

/// How long what has come of a master may take to be applied when it is left.
const LEAVE_NS: u64 = 10 * SECOND_NS;

/// Applies what has come of a master, and follows nobody any more; on the first shard.
pub(crate) async fn promote(server: &Rc<Server<Cache>>) -> Response {
    let (cx, host) = (server.cx().clone(), server.service().repl());
    host.is_leaving.set(true);
    let group = host.group.borrow().clone();
    if let Some(group) = group {
        group.end();
        let until_ns = cx.now().mono_ns + LEAVE_NS;
        while !group.has_ended() && cx.now().mono_ns < until_ns {
            cx.sleep(LOOK_NS / 100).await;
        }
    }
    aof::rewrite::on_all(server, Op::Admin(Ask::Follow(None))).await;
    host.is_leaving.set(false);
    Response::Done
}
