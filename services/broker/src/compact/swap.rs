//! A group of segments gives way to its copy, so that after a crash at any moment one or the other is there.
//!
//! ```text
//! 1  B.log.cleaned and its indexes are written and synced         a start removes them
//! 2  `compaction` says that B.log.swap is for the segments B..end
//! 3  .cleaned is renamed to .swap, the log last; synced            from here on a start goes on with 4
//! 4  old segments behind B and B's old indexes are removed; synced
//! 5  .swap loses its suffix, the log last; synced
//! ```
//! The suffixes are Kafka's. In memory the segments change between 3 and 4. Invariants: one job at a time changes files
//! beside the log, so no index of an old segment is written after its copy's; an index that is there belongs to the
//! log that is there, since old ones go before. Next: [`super::noted`].

use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use engine::driver::OpenOptions;
use engine::error::{Error, Kind};
use engine::exec::sync::yield_now;
use engine::fs::{Dir, File};
use engine::shard::ShardCx;
use logic::log::compact::Cleaner;

use super::copy::Copy;
use super::noted::{FILE, Noted};
use super::{Job, Trouble};
use crate::partition::{INDEX, LOG, Segment, TIME_INDEX, file_name, offset_of, store_noted};

/// What a copy's log is called while it is written.
pub(super) const LOG_CLEANED: &str = "log.cleaned";
/// Suffix of what is being written.
const CLEANED: &str = "cleaned";
/// Suffix of what is whole.
const SWAP: &str = "swap";
/// In the order in which they are renamed.
const PARTS: [&str; 3] = [INDEX, TIME_INDEX, LOG];
/// Segments whose files are removed before others get their turn.
const REMOVED_MAX: usize = 8;
/// How long jobs that change files are waited for, and how often.
const QUIET_WAITS: usize = 1000;
const QUIET_NS: u64 = 10_000_000;

fn with_suffix(base: i64, part: &str, suffix: &str) -> String {
    format!("{}.{suffix}", file_name(base, part))
}

impl Job {
    pub(super) fn path(&self, base: i64, suffix: &str) -> PathBuf {
        self.dir.join(file_name(base, suffix))
    }

    /// Copies a group of segments, and replaces them by the copy if that is another.
    pub(super) async fn replace(
        &mut self,
        cleaner: &Cleaner<'_>,
        group: Range<usize>,
    ) -> Result<(), Trouble> {
        let end = self.next_of(group.end.saturating_sub(1));
        let base = self.segments[group.start].base_offset;
        let mut copy = Copy::create(self, base)?;
        copy.changed = group.len() > 1;
        let mut done = Ok(());
        for at in group {
            let base = self.segments[at].base_offset;
            done = self.copy_segment(cleaner, base, &mut copy).await;
            if done.is_err() {
                break;
            }
        }
        if done.is_ok() && copy.changed {
            done = self.put_in_place(copy, end).await;
        }
        self.clear(base);
        done
    }

    /// Removes what is left of a copy that was not wanted, or could not be finished.
    fn clear(&self, base: i64) {
        for part in PARTS {
            // Most often it is not there.
            let _ = self.cx.driver().unlink(&self.dir.join(with_suffix(base, part, CLEANED)));
        }
    }

    /// Step 1 to 5.
    async fn put_in_place(&mut self, mut copy: Copy, end: i64) -> Result<(), Trouble> {
        self.tally.written_bytes += copy.write(0).await?;
        copy.file.sync().await?;
        let Copy { segment, .. } = copy;
        let base = segment.base;
        let times = segment.times_to_write();
        self.write_cleaned(base, INDEX, &segment.offsets.encode(u32::MAX)).await?;
        self.write_cleaned(base, TIME_INDEX, &times).await?;
        let turns = Rc::clone(&self.turns);
        for _ in 0..QUIET_WAITS {
            let turn = turns.turn().await;
            // The clone above is one more.
            if self.with(|partition| partition.is_quiet_for(2))? {
                let swapped = self.swap(segment, end).await;
                drop(turn);
                return swapped;
            }
            drop(turn);
            self.cx.sleep(QUIET_NS).await;
        }
        let busy = "other files beside the log were being written all the time";
        Err(Trouble::Later(Error::new("compact", Kind::TimedOut, busy)))
    }

    async fn write_cleaned(&self, base: i64, part: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let path = self.dir.join(with_suffix(base, part, CLEANED));
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(&self.cx, &path, &options)?;
        file.truncate(0)?;
        if !bytes.is_empty() {
            let mut buf = engine::buf::DirectBuf::zeroed(bytes.len());
            buf[..bytes.len()].copy_from_slice(bytes);
            file.write_at(buf, bytes.len(), 0).await?;
        }
        file.sync().await.map_err(Trouble::from)
    }

    /// Step 2 to 5, while nobody else changes files beside the log.
    async fn swap(&mut self, segment: Segment, end: i64) -> Result<(), Trouble> {
        let base = segment.base;
        let dir = Dir::existing(&self.cx, &self.dir)?;
        let whole = self.with(|partition| {
            let whole = partition.has_sealed(base, end);
            partition.set_swapping(whole);
            whole
        })?;
        if !whole {
            return Err(Trouble::Gone);
        }
        let swapped = self.commit(&dir, segment, end).await;
        // Whatever came of it.
        if let Some(partition) = self.shard.borrow_mut().partition(self.slot) {
            partition.set_swapping(false);
        }
        swapped
    }

    async fn commit(&mut self, dir: &Dir, mut segment: Segment, end: i64) -> Result<(), Trouble> {
        let base = segment.base;
        let noted = self.with(|partition| partition.noted())?;
        let noted = Noted { gaps_to: noted.gaps_to.max(end), swap: Some((base, end)), ..noted };
        store_noted(&self.cx, &self.dir, &noted).await?;
        self.with(|partition| partition.note(noted))?;
        for part in PARTS {
            dir.rename(&with_suffix(base, part, CLEANED), &with_suffix(base, part, SWAP))?;
        }
        if let Err(error) = dir.sync().await {
            // Whether a start finds the copy is not known: what it finds is right either way, but nothing may be
            // built on it.
            return Err(self.fail(&error));
        }
        segment.has_sidecars = true;
        segment.set_path(self.dir.join(with_suffix(base, LOG, SWAP)));
        // Also when the topic is not to be compacted any more: a start would do it.
        let gone = match self.shard.borrow_mut().partition(self.slot) {
            Some(partition) => partition.replace(segment, end),
            None => return Err(Trouble::Gone),
        };
        self.tally.replaced_segments += gone.len() as u64;
        if let Err(error) = self.take_over(dir, base, &gone).await {
            return Err(self.fail(&error));
        }
        Ok(())
    }

    /// Step 4 and 5.
    async fn take_over(&self, dir: &Dir, base: i64, gone: &[i64]) -> Result<(), Error> {
        remove_old(dir, base, gone).await?;
        dir.sync().await?;
        for part in PARTS {
            dir.rename(&with_suffix(base, part, SWAP), &file_name(base, part))?;
        }
        if let Some(partition) = self.shard.borrow_mut().partition(self.slot) {
            partition.renamed(base, self.path(base, LOG));
        }
        dir.sync().await
    }

    /// The names of files are half changed, which a start puts in order.
    fn fail(&self, error: &Error) -> Trouble {
        if let Some(partition) = self.shard.borrow_mut().partition(self.slot) {
            partition.give_up(&self.cx, format!("segments could not be replaced: {error}"));
        }
        Trouble::Gone
    }

    /// Notes that a round is over.
    pub(super) async fn finish(&mut self, end: i64) -> Result<(), Trouble> {
        let turns = Rc::clone(&self.turns);
        let _turn = turns.turn().await;
        let noted = self.with(|partition| partition.noted())?;
        let noted = Noted { cleaned_to: Some(end), gaps_to: noted.gaps_to, swap: None };
        store_noted(&self.cx, &self.dir, &noted).await?;
        self.with(|partition| partition.note(noted))
    }
}

/// Removes the files of the segments that a copy stands for, but for the one log that it is renamed over.
async fn remove_old(dir: &Dir, base: i64, gone: &[i64]) -> Result<(), Error> {
    for (done, old) in gone.iter().enumerate() {
        if done % REMOVED_MAX == REMOVED_MAX - 1 {
            yield_now().await;
        }
        for part in PARTS.into_iter().filter(|part| *old != base || *part != LOG) {
            match dir.remove(&file_name(*old, part)) {
                // Sidecars need not be there.
                Err(error) if error.errno().is_none_or(|errno| errno.0 != 2) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Ends or undoes, at a start, what was under way.
///
/// # Errors
/// The files cannot be read, renamed or removed.
pub(crate) async fn recover(cx: &ShardCx, dir: &Dir) -> Result<(), Error> {
    let names = dir.list()?;
    let is = |name: &&String, suffix: &str| {
        name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
    };
    let unfinished: Vec<&String> = names.iter().filter(|name| is(name, CLEANED)).collect();
    let whole: Vec<&String> = names.iter().filter(|name| is(name, SWAP)).collect();
    if unfinished.is_empty() && whole.is_empty() {
        return Ok(());
    }
    for name in unfinished {
        dir.remove(name)?;
    }
    let file = crate::partition::read_file(cx, &dir.path().join(FILE)).await?;
    let noted = file.and_then(|file| Noted::decode(&file)).unwrap_or_default();
    let log_swap = format!("{LOG}.{SWAP}");
    for base in whole.iter().filter_map(|name| offset_of(name, &log_swap)) {
        // Without a note only the one that it is named for.
        let end = noted.swap.filter(|swap| swap.0 == base).map_or(base + 1, |swap| swap.1);
        let logs = names.iter().filter_map(|name| offset_of(name, LOG));
        let old: Vec<i64> = logs.filter(|old| (base..end).contains(old)).collect();
        // Indexes that have their names already may be the copy's or not: they are made again.
        remove_old(dir, base, &old).await?;
        dir.sync().await?;
        for part in PARTS {
            let from = with_suffix(base, part, SWAP);
            if names.contains(&from) {
                dir.rename(&from, &file_name(base, part))?;
            }
        }
        let pairs: [(&str, &dyn std::fmt::Display); 2] =
            [("directory", &dir.path().display()), ("offset", &base)];
        cx.log().info("broker", cx.now(), "replacing of segments finished", &pairs);
    }
    // Indexes of a log that has its name already, which a start makes again.
    for name in dir.list()?.iter().filter(|name| is(name, SWAP)) {
        dir.remove(name)?;
    }
    dir.sync().await
}
