//! Bits that flip in what was synced, and what a broker may say about it.
//!
//! Only segments that are sealed and known to be synced are hit: the newest snapshot of producers speaks of more than
//! they hold. What lies behind may look like a write that was never finished. Invariant: a consumer may be refused the
//! offsets of the batches that were hit, and no others; nobody is given one as if it were good. Next: `peer`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use engine::driver::sim::World;
use engine::rng::Rng;
use wire::kafka::batch::Batch;

use super::{DIR, TOPIC};

/// Segments hit at a time.
const FILES_MAX: u64 = 2;
/// Bits that flip in one.
const BITS_MAX: u64 = 3;

/// What was hit.
#[derive(Debug, Default)]
pub(super) struct Rot {
    /// Offsets by partition.
    hit: BTreeMap<i32, Vec<Range<i64>>>,
    /// Files that were hit already: their batches cannot be told from each other any more.
    files: Vec<PathBuf>,
    flips: u64,
}

fn number(name: &str, suffix: &str) -> Option<i64> {
    name.strip_suffix(suffix)?.parse().ok()
}

impl Rot {
    /// Whether consumers may be refused an offset.
    pub(super) fn is_hit(&self, partition: i32, offset: i64) -> bool {
        self.hit.get(&partition).is_some_and(|list| list.iter().any(|one| one.contains(&offset)))
    }

    pub(super) const fn flips(&self) -> u64 {
        self.flips
    }

    /// Flips bits in a partition's files, while the machine is off.
    pub(super) fn strike(&mut self, world: &World, partition: i32, rng: &mut Rng) {
        let dir = PathBuf::from(DIR).join(format!("{TOPIC}-{partition}"));
        let names = world.list_dir(&dir);
        let synced_to = names.iter().filter_map(|name| number(name, ".snapshot")).max();
        let bases: Vec<i64> = names.iter().filter_map(|name| number(name, ".log")).collect();
        let sealed = bases.windows(2).filter(|pair| synced_to.is_some_and(|to| pair[1] <= to));
        let sealed: Vec<PathBuf> =
            sealed.map(|pair| dir.join(format!("{:020}.log", pair[0]))).collect();
        for _ in 0..rng.below(FILES_MAX + 1) {
            let Some(path) = rng.pick(&sealed).filter(|path| !self.files.contains(path)) else {
                continue;
            };
            let bytes = world.durable_file(path).unwrap_or_default();
            self.files.push(path.clone());
            for _ in 0..rng.between(1, BITS_MAX) {
                self.flip(world, partition, (path, &bytes), rng);
            }
        }
    }

    fn flip(
        &mut self,
        world: &World,
        partition: i32,
        (path, bytes): (&PathBuf, &[u8]),
        rng: &mut Rng,
    ) {
        // Headers are as likely as records.
        let mut starts = vec![0];
        let mut rest = bytes;
        while let Ok((_, after)) = Batch::split(rest) {
            rest = after;
            starts.push(bytes.len() - rest.len());
        }
        starts.pop();
        let Some(&start) = rng.pick(&starts) else { return };
        let Ok((batch, _)) = Batch::split(&bytes[start..]) else { return };
        let within = if rng.chance(1, 2) { 61 } else { batch.len() };
        let at = start + rng.index(within);
        if world.flip_bit(path, at as u64, rng.below(8) as u32) {
            self.flips += 1;
            let hit = batch.base_offset()..batch.last_offset() + 1;
            self.hit.entry(partition).or_default().push(hit);
        }
    }
}
