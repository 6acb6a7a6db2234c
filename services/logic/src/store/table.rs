//! One database's table: extendible hashing over segments of 64 buckets.
//!
//! The directory maps a hash's top bits to a segment. A full segment splits in two, rehashing its
//! own keys only (some tens of microseconds), so growth never stalls and memory grows in steps of
//! 4 KiB. A segment emptied by removals merges with its buddy. The directory doubles by copying
//! four bytes per entry; it may not outgrow the keys, so keys that collide in full cannot make it.
//!
//! A key lives in its home bucket, else in the next one, else in the segment's stash. The stash
//! asks for a split from [`STASH_SPLIT`] on but takes more when a split cannot help.
//!
//! Invariants: each directory entry names the segment whose prefix covers it; `dues` holds, per
//! segment, a time not later than any of its buckets'; a segment's `len` is the sum of its places.
//! Next: `bucket.rs` for the line itself, `grow.rs` for splits and merges.

use super::{arena::Ref, bucket::Bucket, due::Due, hash::Records, record::Heap, snapshot::Unsaved};

/// Buckets per segment.
pub(super) const BUCKETS: usize = 64;
/// The stash size at which a segment is split if that can help: 5 % of its places, which lets the
/// buckets fill to some 85 % first.
pub(super) const STASH_SPLIT: usize = 40;
/// A place's bucket number when it is in the stash.
const IN_STASH: u8 = 64;

pub(super) type Segment = Box<[Bucket; BUCKETS]>;

/// A key that found no place in its buckets.
#[derive(Clone, Copy)]
pub(super) struct Stashed {
    pub(super) to: Ref,
    pub(super) print: u8,
    pub(super) home: u8,
}

/// What is known about a segment beside its buckets.
pub(super) struct Meta {
    pub(super) stash: Vec<Stashed>,
    /// The first hash (its top 32 bits) the segment covers.
    pub(super) prefix: u32,
    /// Keys in it.
    pub(super) len: u32,
    /// How many bits of `prefix` count.
    pub(super) depth: u8,
}

/// Where in a table a key's reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    segment: u32,
    /// Position in the bucket or in the stash.
    index: u32,
    bucket: u8,
}

/// The table. An unused one holds no memory.
pub(super) struct Table {
    pub(super) directory: Vec<u32>,
    /// 63 minus the directory's depth.
    pub(super) shift: u32,
    pub(super) segments: Vec<Segment>,
    /// Earliest expiry per segment, side by side so that the active pass skips fast.
    pub(super) dues: Vec<Due>,
    pub(super) metas: Vec<Meta>,
    pub(super) len: u64,
    /// Keys with an expiry.
    pub(super) expires: u64,
    pub(super) bytes: u64,
    /// What a snapshot still has to write of it.
    pub(super) unsaved: Option<Box<Unsaved>>,
}

#[inline]
const fn low6(hash: u64) -> u8 {
    (hash & 63) as u8
}

#[inline]
pub(super) const fn home_of(hash: u64) -> usize {
    low6(hash) as usize
}

#[inline]
pub(super) const fn next_bucket(bucket: usize) -> usize {
    (bucket + 1) % BUCKETS
}

#[inline]
pub(super) fn print_of(hash: u64) -> u8 {
    ((hash >> 6) & 0xFF).max(1) as u8
}

/// The 32 bits the directory and the scan order by.
#[inline]
pub(super) const fn prefix_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            directory: Vec::new(),
            shift: 63,
            segments: Vec::new(),
            dues: Vec::new(),
            metas: Vec::new(),
            len: 0,
            expires: 0,
            bytes: 0,
            unsaved: None,
        }
    }

    /// Index of the segment a hash belongs to.
    #[inline]
    pub(super) fn segment_of(&self, hash: u64) -> Option<u32> {
        self.directory.get(((hash >> 1) >> self.shift) as usize).copied()
    }

    #[inline]
    fn home(&self, hash: u64) -> Option<(u32, &[Bucket; BUCKETS], &Bucket)> {
        let index = self.segment_of(hash)?;
        let segment = self.segments.get(index as usize)?;
        Some((index, segment, segment.get(home_of(hash))?))
    }

    /// Loads the home bucket's line.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u32 {
        self.home(hash).map_or(0, |(_, _, bucket)| bucket.word())
    }

    /// The first reference that may be the key's.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<Ref> {
        let (_, _, bucket) = self.home(hash)?;
        bucket.matches(print_of(hash)).next().map(|place| bucket.at(place))
    }

    /// The key's place and reference.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8], heap: &Heap) -> Option<(Place, Ref)> {
        self.probe(hash, |at| heap.has_key(at, key))
    }

    /// The place of a known reference.
    pub(super) fn find_ref(&self, hash: u64, to: Ref) -> Option<Place> {
        self.probe(hash, |at| at == to).map(|(place, _)| place)
    }

    #[inline]
    fn probe(&self, hash: u64, test: impl Fn(Ref) -> bool) -> Option<(Place, Ref)> {
        let (segment, buckets, home) = self.home(hash)?;
        for place in home.matches(print_of(hash)) {
            let at = home.at(place);
            if test(at) {
                return Some((Place::bucket(segment, home_of(hash), place), at));
            }
        }
        if home.overflow() == 0 {
            return None;
        }
        self.probe_outside(hash, segment, buckets, test)
    }

    #[cold]
    fn probe_outside(
        &self,
        hash: u64,
        segment: u32,
        buckets: &[Bucket; BUCKETS],
        test: impl Fn(Ref) -> bool,
    ) -> Option<(Place, Ref)> {
        let print = print_of(hash);
        let other = next_bucket(home_of(hash));
        let bucket = buckets.get(other)?;
        for place in bucket.matches(print) {
            let at = bucket.at(place);
            if test(at) {
                return Some((Place::bucket(segment, other, place), at));
            }
        }
        let stash = &self.metas.get(segment as usize)?.stash;
        (0u32..)
            .zip(stash)
            .find(|(_, stashed)| stashed.print == print && test(stashed.to))
            .map(|(index, stashed)| (Place { segment, index, bucket: IN_STASH }, stashed.to))
    }

    /// Adds a reference that is not in the table.
    pub(super) fn insert(&mut self, hash: u64, to: Ref, expire_ms: u64, records: Records<'_>) {
        if self.segments.is_empty() {
            self.first_segment();
        }
        let due = Due::at(expire_ms, records.now_ms);
        while let Some(segment) = self.segment_of(hash) {
            if self.place(segment, hash, to, due, records.now_ms) {
                break;
            }
            if !self.split(segment, hash, records) {
                self.stash(segment, hash, to, due, records.now_ms);
                break;
            }
        }
        self.len += 1;
        self.expires += u64::from(expire_ms != 0);
    }

    /// Puts a reference into a segment; false when only a long stash would take it.
    pub(super) fn place(
        &mut self,
        segment: u32,
        hash: u64,
        to: Ref,
        due: Due,
        now_ms: u64,
    ) -> bool {
        let home = home_of(hash);
        for bucket in [home, next_bucket(home)] {
            let Some(line) = self.bucket_mut(segment, bucket) else {
                return false;
            };
            let Some(place) = line.free_place() else {
                continue;
            };
            line.put(place, print_of(hash), to);
            if bucket != home
                && let Some(line) = self.bucket_mut(segment, home)
            {
                line.add_overflow();
            }
            if let Some(meta) = self.metas.get_mut(segment as usize) {
                meta.len += 1;
            }
            self.note_bucket(segment, bucket, due, now_ms);
            return true;
        }
        let room = self.metas.get(segment as usize).is_some_and(|m| m.stash.len() < STASH_SPLIT);
        if room {
            self.stash(segment, hash, to, due, now_ms);
        }
        room
    }

    /// Puts a reference into a segment's stash, however long it is.
    pub(super) fn stash(&mut self, segment: u32, hash: u64, to: Ref, due: Due, now_ms: u64) {
        let home = home_of(hash);
        let Some(meta) = self.metas.get_mut(segment as usize) else {
            return;
        };
        let before = meta.stash.capacity();
        meta.stash.push(Stashed { to, print: print_of(hash), home: low6(hash) });
        meta.len += 1;
        self.bytes += ((meta.stash.capacity() - before) * size_of::<Stashed>()) as u64;
        if let Some(line) = self.bucket_mut(segment, home) {
            line.add_overflow();
        }
        self.note_bucket(segment, home, due, now_ms);
    }

    /// Removes the reference at `place`, whose record is still readable.
    pub(super) fn remove(&mut self, hash: u64, place: Place, expire_ms: u64, records: Records<'_>) {
        let home = home_of(hash);
        if place.bucket == IN_STASH {
            if let Some(meta) = self.metas.get_mut(place.segment as usize) {
                meta.stash.swap_remove(place.index as usize);
            }
        } else if let Some(line) = self.bucket_mut(place.segment, usize::from(place.bucket)) {
            line.put(place.index as usize, 0, 0);
        }
        if usize::from(place.bucket) != home
            && let Some(line) = self.bucket_mut(place.segment, home)
        {
            line.sub_overflow();
        }
        self.len -= 1;
        self.expires -= u64::from(expire_ms != 0);
        let Some(meta) = self.metas.get_mut(place.segment as usize) else {
            return;
        };
        meta.len -= 1;
        if meta.len < 64 && meta.len.is_multiple_of(16) && meta.depth != 0 {
            self.merge(place.segment, records);
        }
    }

    /// The record moved.
    pub(super) fn set_ref(&mut self, place: Place, to: Ref) {
        if place.bucket == IN_STASH {
            let stash = self.metas.get_mut(place.segment as usize).map(|meta| &mut meta.stash);
            if let Some(stashed) = stash.and_then(|stash| stash.get_mut(place.index as usize)) {
                stashed.to = to;
            }
        } else if let Some(line) = self.bucket_mut(place.segment, usize::from(place.bucket)) {
            line.set_ref(place.index as usize, to);
        }
    }

    /// A key's expiry changed.
    pub(super) fn change_expiry(
        &mut self,
        hash: u64,
        place: Place,
        old_ms: u64,
        new_ms: u64,
        now_ms: u64,
    ) {
        self.expires += u64::from(new_ms != 0);
        self.expires -= u64::from(old_ms != 0);
        let bucket = match place.bucket {
            IN_STASH => home_of(hash),
            bucket => usize::from(bucket),
        };
        self.note_bucket(place.segment, bucket, Due::at(new_ms, now_ms), now_ms);
    }

    #[inline]
    fn note_bucket(&mut self, segment: u32, bucket: usize, due: Due, now_ms: u64) {
        if due.is_none() {
            return;
        }
        if let Some(line) = self.bucket_mut(segment, bucket) {
            line.set_due(line.due().earlier(due, now_ms));
        }
        if let Some(slot) = self.dues.get_mut(segment as usize) {
            *slot = slot.earlier(due, now_ms);
        }
    }

    #[inline]
    pub(super) fn bucket_mut(&mut self, segment: u32, bucket: usize) -> Option<&mut Bucket> {
        self.segments.get_mut(segment as usize)?.get_mut(bucket)
    }

    pub(super) fn bucket(&self, segment: u32, bucket: usize) -> Option<&Bucket> {
        self.segments.get(segment as usize)?.get(bucket)
    }

    /// The references the expiry note of a bucket speaks for: the bucket's own, and the stashed
    /// ones whose home it is.
    pub(super) fn refs_of(&self, segment: u32, bucket: usize) -> impl Iterator<Item = Ref> + '_ {
        let own = self.bucket(segment, bucket).into_iter().flat_map(Bucket::refs);
        let stash = self.metas.get(segment as usize).map_or(&[][..], |meta| &meta.stash);
        own.chain(stash.iter().filter(move |s| usize::from(s.home) == bucket).map(|s| s.to))
    }

    /// The references whose home is `bucket`, wherever in the segment they are, perhaps with some
    /// of a neighbour's: the caller knows by the hash.
    pub(super) fn refs_around(
        &self,
        segment: u32,
        bucket: usize,
    ) -> impl Iterator<Item = Ref> + '_ {
        let overflowed = self.bucket(segment, bucket).is_some_and(|line| line.overflow() != 0);
        let next = self.bucket(segment, next_bucket(bucket)).filter(|_| overflowed);
        self.refs_of(segment, bucket).chain(next.into_iter().flat_map(Bucket::refs))
    }

    #[cfg(test)]
    /// Keys held per place, for tests and statistics.
    pub(super) fn load(&self) -> f64 {
        let places = self.segments.len() * BUCKETS * super::bucket::PLACES;
        if places == 0 { 0.0 } else { self.len as f64 / places as f64 }
    }
}

impl Place {
    #[inline]
    fn bucket(segment: u32, bucket: usize, place: usize) -> Self {
        // Both are below 64.
        let [bucket, ..] = bucket.to_le_bytes();
        let [index, ..] = place.to_le_bytes();
        Self { segment, index: u32::from(index), bucket }
    }
}
