//! Reads, writes, syncs and appends of blocks on the engine's ring.
//!
//! Invariants: every block read is checked before it counts; a block is in flight once at a time, so
//! what it must hold is always known; an append counts when it is durable. Buffers go to the ring and
//! come back. Next: `block` for what is checked, `run` for the loop around it.

use anyhow::{Context, Result, bail, ensure};
use engine::buf::DirectBuf;
use engine::driver::{Completion, Driver, Errno, Fd, Op, Payload};

use super::block::Pattern;
use super::pace::{Order, Places};
use super::run::{Step, Work};
use crate::rng::Rng;

/// What is done with blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Read, or write, by chance: the share that is read.
    Mix(f64),
    /// Write a block, then fsync: the file's metadata too.
    Fsync,
    /// Append what is due, as one write, and make it durable: fdatasync, or a durable write with
    /// O_DIRECT.
    Append,
}

/// How the file is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) block_bytes: usize,
    pub(super) blocks: u64,
    pub(super) depth: usize,
    pub(super) order: Order,
    /// Opened with O_DIRECT.
    pub(super) direct: bool,
    /// Reads look into the page cache before they go to the ring.
    pub(super) cached_first: bool,
    pub(super) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    Reading,
    Writing,
    Syncing,
}

#[derive(Debug)]
struct Slot {
    buf: Option<DirectBuf>,
    stage: Stage,
    block: u64,
    records: usize,
}

/// Blocks of one file.
pub(super) struct Blocks {
    file: Fd,
    kind: Kind,
    layout: Layout,
    pattern: Pattern,
    places: Places,
    /// How often each block was written.
    versions: Vec<u32>,
    slots: Vec<Slot>,
    rng: Rng,
}

impl Blocks {
    /// Blocks of `file`, which all hold their first version.
    pub(super) fn new(driver: &mut Driver, file: Fd, kind: Kind, layout: Layout) -> Self {
        let (slots, records) =
            if kind == Kind::Append { (1, layout.depth) } else { (layout.depth, 1) };
        let slot = |_| {
            let buf = DirectBuf::zeroed(layout.block_bytes * records);
            // Pins its pages once rather than with each operation; through the page cache there are
            // none to pin.
            let buf = if layout.direct { driver.register(buf) } else { buf };
            Slot { buf: Some(buf), stage: Stage::Free, block: 0, records: 0 }
        };
        let blocks = usize::try_from(layout.blocks).unwrap_or(usize::MAX);
        Self {
            file,
            kind,
            layout,
            pattern: Pattern::new(layout.seed),
            places: Places::new(layout.blocks, layout.order, layout.seed),
            versions: vec![1; blocks],
            slots: (0..slots).map(slot).collect(),
            rng: Rng::new(layout.seed ^ 1),
        }
    }

    /// Ends what holds the ring's memory: how often each block was written.
    pub(super) fn close(mut self, driver: &mut Driver) -> Vec<u32> {
        for slot in &mut self.slots {
            // Freed here, when it is not in flight; an operation that failed keeps its own.
            drop(slot.buf.take().map(|buf| driver.unregister(buf)));
        }
        self.versions
    }

    const fn offset(&self, block: u64) -> u64 {
        block * self.layout.block_bytes as u64
    }

    fn version(&self, block: u64) -> u32 {
        usize::try_from(block).ok().and_then(|at| self.versions.get(at)).copied().unwrap_or(0)
    }

    /// Fills the slot's buffer with the next versions of its blocks.
    fn fill(&mut self, slot: usize) -> Result<DirectBuf> {
        let Slot { block, records, .. } = self.slots[slot];
        let mut buf = self.slots[slot].buf.take().context("the slot's buffer is in use")?;
        let len = self.layout.block_bytes;
        for (number, bytes) in (block..).zip(buf.chunks_exact_mut(len).take(records)) {
            let version = self.version(number).wrapping_add(1);
            if let Some(have) = self.versions.get_mut(number as usize) {
                *have = version;
            }
            self.pattern.fill(bytes, number, version);
        }
        Ok(buf)
    }

    fn read(&mut self, driver: &mut Driver, slot: usize) -> Result<Step> {
        let len = self.layout.block_bytes;
        let offset = self.offset(self.slots[slot].block);
        let mut buf = self.slots[slot].buf.take().context("the slot's buffer is in use")?;
        if self.layout.cached_first {
            let read = driver.read_now(self.file, &mut buf[..len], offset);
            if read == Ok(len) {
                return Ok(self.checked(slot, buf));
            }
        }
        self.slots[slot].stage = Stage::Reading;
        let op = Op::Read { fd: self.file, buf, len, offset, uncached: false };
        driver.submit(slot as u64, op);
        Ok(Step::Pending)
    }

    fn write(&mut self, driver: &mut Driver, slot: usize) -> Result<Step> {
        let buf = self.fill(slot)?;
        let offset = self.offset(self.slots[slot].block);
        let len = self.layout.block_bytes * self.slots[slot].records;
        let durable = self.kind == Kind::Append && self.layout.direct;
        self.slots[slot].stage = Stage::Writing;
        driver.submit(slot as u64, Op::Write { fd: self.file, buf, len, offset, durable });
        Ok(Step::Pending)
    }

    /// The slot's block has been read: whether it holds what it must.
    fn checked(&mut self, slot: usize, buf: DirectBuf) -> Step {
        let block = self.slots[slot].block;
        let bytes = &buf[..self.layout.block_bytes];
        let found = self.pattern.check(bytes, block, self.version(block));
        self.slots[slot].buf = Some(buf);
        self.end(slot);
        Step::Done(found)
    }

    fn end(&mut self, slot: usize) {
        self.slots[slot].stage = Stage::Free;
        if self.kind != Kind::Append {
            self.places.give_back(self.slots[slot].block);
        }
    }

    fn what(&self, slot: usize, stage: Stage) -> String {
        let what = match stage {
            Stage::Reading => "read",
            Stage::Writing => "write",
            Stage::Syncing if self.kind == Kind::Append => "fdatasync after the write",
            Stage::Syncing => "fsync after the write",
            Stage::Free => "an operation nobody started",
        };
        format!("{what} of block {}", self.slots[slot].block)
    }
}

impl Work for Blocks {
    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn batch_max(&self) -> usize {
        if self.kind == Kind::Append { self.layout.depth } else { 1 }
    }

    fn start(&mut self, driver: &mut Driver, slot: usize, records: usize) -> Result<Step> {
        self.slots[slot].records = records;
        if self.kind == Kind::Append {
            self.slots[slot].block = self.places.take_run(records as u64);
            return self.write(driver, slot);
        }
        self.slots[slot].block = self.places.take().context("every block is in use")?;
        match self.kind {
            Kind::Mix(share) if self.rng.unit() < share => self.read(driver, slot),
            _ => self.write(driver, slot),
        }
    }

    fn completed(
        &mut self,
        driver: &mut Driver,
        slot: usize,
        completion: Completion,
    ) -> Result<Step> {
        let stage = self.slots[slot].stage;
        let len = self.layout.block_bytes * self.slots[slot].records;
        if let Payload::Direct(buf) = completion.payload {
            self.slots[slot].buf = Some(buf);
        }
        let value = completion
            .result
            .map_err(|errno: Errno| anyhow::anyhow!("{}: {errno}", self.what(slot, stage)))?;
        if stage != Stage::Syncing {
            let moved = value as usize;
            ensure!(moved == len, "{}: only {moved} of {len} bytes", self.what(slot, stage));
        }
        match stage {
            Stage::Free => bail!("a completion for a slot that waits for none"),
            Stage::Reading => {
                let buf = self.slots[slot].buf.take().context("a read kept its buffer")?;
                return Ok(self.checked(slot, buf));
            }
            Stage::Writing => {
                let data_only = match self.kind {
                    Kind::Fsync => Some(false),
                    Kind::Append if !self.layout.direct => Some(true),
                    _ => None,
                };
                if let Some(data_only) = data_only {
                    self.slots[slot].stage = Stage::Syncing;
                    driver.submit(slot as u64, Op::Fsync { fd: self.file, data_only });
                    return Ok(Step::Pending);
                }
            }
            Stage::Syncing => {}
        }
        self.end(slot);
        Ok(Step::Done(Ok(())))
    }
}
