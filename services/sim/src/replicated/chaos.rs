//! What happens to the two machines: links that are cut or stand still, crashes, restarts, failovers; and rest.
//!
//! Next: `course` for the loop.

use super::course::{Promise, Run};
use super::side::{field, words};

/// How long both may take to come to rest, and a failover to be over.
const REST_NS: u64 = 150_000_000_000;
const FAILOVER_NS: u64 = 20_000_000_000;
/// How often it is looked whether they have.
const LOOK_NS: u64 = 100_000_000;
/// Starts that may fail while the disk does.
const STARTS_MAX: u32 = 6;
/// What a backlog may hold beyond its bound: an entry.
const ENTRY_BYTES: u64 = 1 << 20;
/// Tasks of a shard, of the first one besides, and of a log.
const TASKS: usize = 4;
const FIRST_TASKS: usize = 2;
const LOG_TASKS: usize = 2;

impl Run {
    /// Something happens.
    pub(super) fn happen(&mut self) -> Result<(), String> {
        match self.rng.below(24) {
            0..5 => {
                let cut = self.world.cut_links();
                self.tell(|| format!("{cut} links are cut"));
                self.mark("replicated: links cut");
                Ok(())
            }
            5..8 => {
                let most_ns =
                    *self.rng.pick(&[100_000_000, 1_500_000_000, 8_000_000_000]).unwrap_or(&1);
                let for_ns = self.rng.between(1, most_ns);
                self.tell(|| format!("nothing gets across for {for_ns} ns"));
                self.world.part_machines(for_ns);
                self.mark("replicated: links stand still");
                Ok(())
            }
            8..11 => self.crash_replica(),
            11..13 => self.crash_master(),
            // The disk of the one that would be the master then is the one that fails.
            13..19 if self.setup.disk_fails() => self.crash_replica(),
            13..16 => self.fail_over(),
            16..19 => self.promote(),
            19 => self.leave_and_come_back(),
            20..22 => self.switch_logs(),
            _ => {
                self.rest_and_compare()?;
                self.world.set_faults(self.setup.faults.clone());
                Ok(())
            }
        }
    }

    // Crashes.

    fn power_off(&mut self, side: usize) {
        self.sides[side].machine.end();
        self.sides[side].is_up = false;
        for shard in 0..self.sides[side].shards {
            self.world.close_shard(side * engine::driver::sim::MACHINE_SHARDS + shard);
        }
        self.world.crash_disk_of(side);
        if side == self.master {
            self.leave_master();
        } else {
            self.readers.iter_mut().for_each(super::reader::Reader::leave);
            self.seen.forget();
            self.in_parts = self.setup.logs[side];
            // What it had applied may be gone.
            self.peers.iter_mut().for_each(crate::durable::peer::Peer::forget_waits);
        }
    }

    /// Clients of the master leave it.
    fn leave_master(&mut self) {
        self.peers.iter_mut().for_each(crate::durable::peer::Peer::crashed);
        self.wilds.iter_mut().for_each(super::wild::Wild::leave);
    }

    /// Starts a machine until it runs.
    fn power_on(&mut self, side: usize, follows: bool) -> Result<(), String> {
        let mut failed = 0;
        loop {
            if self.rng.chance(1, 3) {
                let away_ns = self.rng.between(0, 3_000_000_000);
                self.go_on(away_ns)?;
            }
            if self.rng.chance(1, 2) {
                self.sides[side].shards = self.rng.between(1, 3) as usize;
            }
            let shards = self.sides[side].shards;
            let port = follows.then(|| self.setup.doors(1 - side).port);
            self.tell(|| format!("machine {side} starts with {shards} shards, follows {port:?}"));
            match self.setup.start(&self.world, (side, shards), port) {
                Ok(machine) => {
                    self.sides[side].machine = machine;
                    self.loaded(side)?;
                    if self.ended(side).is_none() {
                        self.sides[side].is_up = true;
                        return Ok(());
                    }
                }
                Err(error) => self.tell(|| format!("no start: {error}")),
            }
            let said = self.said(side);
            self.mark("replicated: starts failed");
            failed += 1;
            if failed > STARTS_MAX || !self.setup.disk_fails() {
                return Err(format!("machine {side} does not start: {said}"));
            }
            if failed == STARTS_MAX {
                self.world.heal();
            }
            self.power_off(side);
        }
    }

    fn crash_replica(&mut self) -> Result<(), String> {
        let side = 1 - self.master;
        self.mark("replicated: crashes of the replica");
        self.tell(|| "the replica crashes".into());
        self.power_off(side);
        self.power_on(side, true)
    }

    fn crash_master(&mut self) -> Result<(), String> {
        self.mark("replicated: crashes of the master");
        self.tell(|| "the master crashes".into());
        let has_log = self.setup.logs[self.master];
        self.power_off(self.master);
        if self.rng.chance(1, 2) {
            let away_ns = self.rng.between(1, 2_000_000_000);
            self.go_on(away_ns)?;
        }
        self.power_on(self.master, false)?;
        self.begin_epoch(match has_log {
            // A log that was off for a while has no beginning either: it has what was there then.
            _ if self.setup.toggles => Promise::Nothing,
            true => Promise::Answered,
            false => Promise::Nothing,
        })
    }

    // Roles.

    /// The other machine is the master now, and clients go there.
    fn change_roles(&mut self, promise: Promise) -> Result<(), String> {
        self.leave_master();
        self.master = 1 - self.master;
        self.takes_over = false;
        self.readers.iter_mut().for_each(super::reader::Reader::leave);
        self.seen.forget();
        self.begin_epoch(promise)
    }

    fn fail_over(&mut self) -> Result<(), String> {
        if self.ended(1 - self.master).is_some() {
            return Ok(());
        }
        self.takes_over = true;
        let timeout_ms = self.rng.between(1, 4_000);
        let order = words(&format!("FAILOVER TIMEOUT {timeout_ms}"));
        let answer = self.ask_once(self.master, &[order])?;
        self.tell(|| format!("FAILOVER: {answer:?}"));
        let end_ns = self.world.now().mono_ns + FAILOVER_NS;
        loop {
            self.go_on(LOOK_NS / 4)?;
            let one = self.info_once(self.master)?.unwrap_or_default();
            let other = self.info_once(1 - self.master)?.unwrap_or_default();
            let roles = (field(&one, "role"), field(&other, "role"));
            if roles == ("slave", "master") {
                self.tell(|| "the failover is done".into());
                self.mark("replicated: failovers");
                return self.change_roles(Promise::Answered);
            }
            if roles == ("master", "slave") && field(&one, "master_failover_state") == "no-failover"
            {
                self.mark("replicated: failovers given up");
                self.takes_over = false;
                return Ok(());
            }
            if self.world.now().mono_ns > end_ns {
                // Nobody could be told whether the replica has taken over: both may be masters, and somebody decides.
                self.mark("replicated: failovers in doubt");
                self.tell(|| format!("failover in doubt: {one} {other}"));
                if field(&other, "role") != "master" {
                    return Err(format!("a failover does not end: {one} {other}"));
                }
                self.leave_master();
                let port = self.setup.doors(1 - self.master).port;
                self.ask(self.master, &[words(&format!("REPLICAOF 127.0.0.1 {port}"))])?;
                return self.change_roles(Promise::Answered);
            }
        }
    }

    /// The master is lost, and the replica takes over.
    fn promote(&mut self) -> Result<(), String> {
        let side = 1 - self.master;
        if self.ended(side).is_some() {
            return Ok(());
        }
        let info = self.info_once(side)?.unwrap_or_default();
        // In the middle of a data set it has nothing to promise.
        if field(&info, "master_link_status") != "up" {
            self.mark("replicated: no promotion without a link");
            return Ok(());
        }
        self.tell(|| "the replica takes over".into());
        self.mark("replicated: promotions");
        self.takes_over = true;
        let crashes_first = self.rng.chance(1, 2);
        if crashes_first {
            self.power_off(self.master);
        } else {
            self.world.part_machines(100_000_000);
        }
        let answer = self.ask(side, &[words("REPLICAOF NO ONE")])?;
        self.tell(|| format!("REPLICAOF NO ONE: {answer:?}"));
        if !crashes_first {
            self.go_on(LOOK_NS / 10)?;
            self.power_off(self.master);
        }
        let former = self.master;
        self.change_roles(Promise::Waited)?;
        self.power_on(former, true)
    }

    /// The replica is a master for a while.
    fn leave_and_come_back(&mut self) -> Result<(), String> {
        let side = 1 - self.master;
        if self.ended(side).is_some() {
            return Ok(());
        }
        self.mark("replicated: replicas that left for a while");
        self.tell(|| "the replica follows nobody for a while".into());
        self.readers.iter_mut().for_each(super::reader::Reader::leave);
        self.seen.forget();
        self.readers.iter_mut().for_each(|reader| reader.rests = true);
        self.peers.iter_mut().for_each(crate::durable::peer::Peer::forget_waits);
        self.ask(side, &[words("REPLICAOF NO ONE")])?;
        self.ask(side, &[words("MSET own:1 1 own:2 1 own:3 1"), words("RPUSH l1 own")])?;
        let port = self.setup.doors(self.master).port;
        self.ask(side, &[words(&format!("REPLICAOF 127.0.0.1 {port}"))])?;
        // Until it has the master's data set again, it has its own.
        let end_ns = self.world.now().mono_ns + REST_NS;
        loop {
            if self.ended(side).is_some() {
                break;
            }
            let info = self.info_once(side)?.unwrap_or_default();
            if field(&info, "master_link_status") == "up" {
                break;
            }
            if self.world.now().mono_ns > end_ns {
                if self.setup.disk_fails() {
                    // Its log has failed: nothing can be applied.
                    self.power_off(side);
                    self.power_on(side, true)?;
                    break;
                }
                return Err(format!("the replica does not come back: {info}"));
            }
            self.go_on(LOOK_NS)?;
        }
        self.seen.forget();
        self.readers.iter_mut().for_each(|reader| reader.rests = false);
        Ok(())
    }

    fn switch_logs(&mut self) -> Result<(), String> {
        let side = self.rng.index(2);
        let on = if self.rng.chance(1, 2) { "yes" } else { "no" };
        let order = match self.setup.toggles {
            true if self.rng.chance(2, 3) => format!("CONFIG SET appendonly {on}"),
            _ => "BGREWRITEAOF".into(),
        };
        self.mark("replicated: logs switched or rewritten");
        self.tell(|| format!("machine {side}: {order}"));
        self.ask_once(side, &[words(&order)]).map(drop)
    }

    // Rest.

    fn rest(&mut self, rests: bool) {
        self.peers.iter_mut().for_each(|peer| peer.rests = rests);
        self.wilds.iter_mut().for_each(|wild| wild.rests = rests);
    }

    /// Nothing goes wrong any more and nobody writes: both machines come to hold the same.
    pub(super) fn rest_and_compare(&mut self) -> Result<(), String> {
        self.tell(|| "rest".into());
        self.world.heal();
        let replica = 1 - self.master;
        if self.setup.disk_fails() || self.ended(replica).is_some() {
            // A log that has failed is begun anew with a process.
            self.power_off(replica);
            self.power_on(replica, true)?;
        }
        if let Some(code) = self.ended(self.master) {
            return Err(format!("the master has ended with {code}: {}", self.said(self.master)));
        }
        self.rest(true);
        let end_ns = self.world.now().mono_ns + REST_NS;
        self.until("the end of what is under way", |run| {
            let is_idle = run.peers.iter().all(crate::durable::peer::Peer::is_idle)
                && run.wilds.iter().all(super::wild::Wild::is_idle);
            is_idle || run.world.now().mono_ns > end_ns
        })?;
        loop {
            let (one, other) = (self.info(self.master)?, self.info(replica)?);
            self.bounded(&one)?;
            let offsets = (field(&one, "master_repl_offset"), field(&other, "slave_repl_offset"));
            if field(&other, "master_link_status") == "up" && offsets.0 == offsets.1 {
                break;
            }
            if self.world.now().mono_ns > end_ns {
                let said = [self.said(0), self.said(1)];
                return Err(format!(
                    "the replica does not come to rest:\n{one}\n{other}\n{said:?}"
                ));
            }
            self.go_on(LOOK_NS)?;
        }
        self.compare()?;
        self.in_parts = false;
        self.rest(false);
        Ok(())
    }

    /// A backlog holds no more than it may.
    fn bounded(&self, info: &str) -> Result<(), String> {
        let held: u64 = field(info, "repl_backlog_histlen").parse().unwrap_or(0);
        let shards = self.sides[self.master].shards as u64;
        let kept = self.setup.backlog_bytes.max(shards * (16 << 10));
        if held > kept.max(self.setup.behind_bytes) + ENTRY_BYTES * shards {
            return Err(format!("a backlog of {held} bytes, {kept} are to be kept"));
        }
        Ok(())
    }

    /// The replica follows nobody any more and all clients leave: nothing stays of the link.
    pub(super) fn end(&mut self) -> Result<(), String> {
        let replica = 1 - self.master;
        self.ask(replica, &[words("REPLICAOF NO ONE")])?;
        self.leave_master();
        for reader in &mut self.readers {
            reader.leave();
            (reader.rests, reader.wake_ns) = (true, u64::MAX);
        }
        let end_ns = self.world.now().mono_ns + REST_NS / 10;
        let is_quiet = |run: &Self| {
            let is_quiet = |(side, node): (usize, &crate::machine::Node<_>)| {
                let may_log = run.setup.logs[side] || run.setup.toggles;
                let first = if node.cx.index() == 0 { FIRST_TASKS } else { 0 };
                let own = TASKS + first + if may_log { LOG_TASKS } else { 0 };
                node.server.live() == 0 && node.cx.task_count() <= own
            };
            let nodes =
                |side: usize| run.sides[side].machine.nodes.iter().map(move |node| (side, node));
            (0..2).flat_map(nodes).all(is_quiet)
        };
        self.until("the end", |run| is_quiet(run) || run.world.now().mono_ns > end_ns)?;
        if !is_quiet(self) {
            let count = |node: &crate::machine::Node<_>| {
                format!(
                    "{:?}: {} connections, {} tasks",
                    node.cx,
                    node.server.live(),
                    node.cx.task_count()
                )
            };
            let nodes = self.sides.iter().flat_map(|side| &side.machine.nodes);
            return Err(format!("something is left: {:?}", nodes.map(count).collect::<Vec<_>>()));
        }
        Ok(())
    }
}
