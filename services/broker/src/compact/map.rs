//! The first pass of a round: which keys the dirty records have, and where each is last.

use logic::log::compact::OffsetMap;
use wire::kafka::batch::Batch;
use wire::kafka::records::records;

use super::{Job, Trouble};
use crate::partition::Batches;

impl Job {
    /// Puts the keys of the dirty records into the map, as far as there is room.
    pub(super) async fn fill(&mut self, map: &mut OffsetMap) -> Result<(), Trouble> {
        for at in 0..self.segments.len().saturating_sub(1) {
            let (base, next) = (self.segments[at].base_offset, self.next_of(at));
            if next <= self.first_dirty || base >= self.end {
                continue;
            }
            if !self.fill_from(map, base).await? {
                return Ok(());
            }
            // What is missing at a segment's end was compacted away.
            map.cover(next.min(self.end));
        }
        Ok(())
    }

    /// The keys of one segment; whether there was room.
    async fn fill_from(&mut self, map: &mut OffsetMap, base: i64) -> Result<bool, Trouble> {
        let from = self.first_dirty.max(base);
        let source = self.with(|partition| partition.source(&self.cx, base, from))?;
        let mut batches = source.ok_or(Trouble::Gone)??;
        while let Some(batch) = batches.next(base).await? {
            self.tally.read_bytes += batch.len() as u64;
            self.pace.spend(batch.len()).await;
            if batch.last_offset() < from {
                continue;
            }
            if !batch.is_control() && !self.fill_with(map, &batch).await? {
                return Ok(false);
            }
            map.cover(batch.last_offset() + 1);
        }
        self.check_end(base, &batches)?;
        Ok(true)
    }

    async fn fill_with(&mut self, map: &mut OffsetMap, batch: &Batch<'_>) -> Result<bool, Trouble> {
        let plain = self.plain(batch).await?;
        let body = plain.as_deref().unwrap_or(batch.body());
        let mut count = 0;
        for record in records(body) {
            let record = record.map_err(|problem| self.damaged(batch, &problem.to_string()))?;
            count += 1;
            let offset = batch.base_offset().saturating_add(record.offset_delta.into());
            if offset >= self.first_dirty
                && let Some(key) = record.key
            {
                if !map.put(key, offset) {
                    return Ok(false);
                }
                self.pace.spend(super::RECORD_COST_BYTES + key.len()).await;
            }
        }
        if count != batch.record_count() {
            return Err(self.damaged(batch, "it has not as many records as it says"));
        }
        Ok(true)
    }

    /// Whether a segment could be read to its end.
    pub(super) fn check_end(&self, base: i64, batches: &Batches) -> Result<(), Trouble> {
        let Some(position) = batches.damage() else { return Ok(()) };
        Err(Trouble::Never(format!(
            "{}: damage at position {position} of the segment from offset {base}",
            self.name
        )))
    }
}
