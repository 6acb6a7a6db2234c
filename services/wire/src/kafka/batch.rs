//! Record batches of format 2: the unit that is produced, stored and fetched.
//!
//! ```text
//!  0 base offset i64        16 magic i8 = 2           35 max timestamp i64       53 base sequence i32
//!  8 length of the rest i32 17 crc-32c of 21.. u32    43 producer id i64         57 number of records i32
//! 12 leader epoch i32       21 attributes i16         51 producer epoch i16      61 records
//!                           23 last offset delta i32
//!                           27 base timestamp i64
//! ```
//! The checksum leaves out the first 21 bytes, so a broker gives a batch its offset and epoch without touching
//! the rest. Invariants: a [`Batch`] was found whole; [`Batch::check`] says whether it may be stored.
//! Source: the documentation's "Record Batch"; KIP-98, KIP-534. Next: `records` for what is inside.

/// Bytes in front of the records.
pub const HEADER_BYTES: usize = 61;
/// Offset and length: what says how long a batch is.
pub const PREFIX_BYTES: usize = 12;
/// The part that a broker writes anew: offset, length, epoch.
pub const PLACE_BYTES: usize = 16;
/// Where the checksum begins to count.
pub(super) const CRC_FROM: usize = 21;

// Where what is written anew lies.
pub(super) const LEN_AT: usize = 8;
pub(super) const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
pub(super) const BASE_TIMESTAMP_AT: usize = 27;
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
pub(super) const COUNT_AT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;
/// What attributes say beside the codec.
pub(super) const FLAGS: i16 = LOG_APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON;
const KNOWN_ATTRIBUTES: i16 = CODEC_MASK | FLAGS;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Not at all.
    None,
    /// Deflate with gzip's frame.
    Gzip,
    /// Snappy in xerial's frame.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}

/// Where a header has the number of its format, 2.
pub const FORMAT_AT: usize = 16;

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It ends before its length, or its length is too small for a batch.
    Cut,
    /// An older message format.
    OldFormat(i8),
    /// A format that is not known.
    UnknownFormat(i8),
    /// The checksum does not fit.
    Checksum {
        /// In the batch.
        stated: u32,
        /// Of the batch.
        computed: u32,
    },
    /// No records, or their number does not fit the offsets.
    Count,
    /// A codec that is not known.
    UnknownCodec(i16),
    /// Attributes that are not known, or that only a broker may set.
    Attributes(i16),
    /// Producer id, epoch and sequence do not go together.
    Producer,
    /// The largest timestamp is negative, or said to be the broker's, which only a broker may say.
    Timestamp,
}

/// A batch, found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_BYTES],
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $at:literal,)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> $type {
            let mut bytes = [0; size_of::<$type>()];
            for (to, from) in bytes.iter_mut().zip(self.header.iter().skip($at)) {
                *to = *from;
            }
            <$type>::from_be_bytes(bytes)
        })*
    };
}

/// Writes `new` over what lies at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}

/// Length of the batch at the front of `bytes`, whose first [`PREFIX_BYTES`] must be there; `None` when
/// they are not, or when it would be no batch.
#[must_use]
pub fn batch_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.get(8..)?.first_chunk::<4>()?;
    let len = usize::try_from(i32::from_be_bytes(*len)).ok()?.checked_add(PREFIX_BYTES)?;
    (len >= HEADER_BYTES).then_some(len)
}

/// The batches of a record set, one after the other; ends with the first that is not whole, which at the end of
/// what a fetch brought is no mistake.
pub fn batches(mut bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>, Problem>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let found = Batch::split(bytes);
        bytes = found.map_or(&[], |(_, rest)| rest);
        Some(found.map(|(batch, _)| batch))
    })
}

impl<'a> Batch<'a> {
    /// The batch at the front of `bytes`, and what follows it.
    ///
    /// # Errors
    /// It is not whole, or of another format.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Problem> {
        // Formats 0 and 1 have their number at the same place.
        match bytes.get(FORMAT_AT).map(|byte| byte.cast_signed()) {
            Some(2) => {}
            Some(magic @ (0 | 1)) => return Err(Problem::OldFormat(magic)),
            Some(magic) => return Err(Problem::UnknownFormat(magic)),
            None => return Err(Problem::Cut),
        }
        let len = batch_len(bytes).ok_or(Problem::Cut)?;
        let (bytes, rest) = bytes.split_at_checked(len).ok_or(Problem::Cut)?;
        let header = bytes.first_chunk().ok_or(Problem::Cut)?;
        Ok((Self { bytes, header }, rest))
    }

    /// The header of the batch at the front of `bytes`, whose records need not be there. For what the
    /// header says only.
    ///
    /// # Errors
    /// The header is not there, or of another format.
    pub fn header(bytes: &'a [u8]) -> Result<Self, Problem> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Problem::Cut)?;
        match header.get(FORMAT_AT).map(|byte| byte.cast_signed()) {
            Some(2) => Ok(Self { bytes: header, header }),
            Some(magic @ (0 | 1)) => Err(Problem::OldFormat(magic)),
            magic => Err(Problem::UnknownFormat(magic.unwrap_or(-1))),
        }
    }

    fields! {
        /// Offset of the first record.
        base_offset: i64 = 0,
        /// Epoch of the leader that stored it.
        leader_epoch: i32 = 12,
        /// The checksum stated.
        crc: u32 = 17,
        /// Codec and flags.
        attributes: i16 = 21,
        /// Offset of the last record less that of the first.
        last_offset_delta: i32 = 23,
        /// Timestamp of the first record, in milliseconds since the Unix epoch; the delete horizon where
        /// [`Batch::has_delete_horizon`].
        base_timestamp: i64 = 27,
        /// The largest timestamp.
        max_timestamp: i64 = 35,
        /// The producer's id; -1 for none.
        producer_id: i64 = 43,
        /// Its epoch.
        producer_epoch: i16 = 51,
        /// The first record's sequence number.
        base_sequence: i32 = 53,
        /// How many records.
        record_count: i32 = 57,
    }

    /// All of it.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its length as its header says.
    #[must_use]
    pub fn len(&self) -> usize {
        batch_len(self.header).unwrap_or(HEADER_BYTES)
    }

    /// Whether it has no records left, which compaction may do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count() == 0
    }

    /// The records, compressed or not.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset().saturating_add(i64::from(self.last_offset_delta()))
    }

    /// The last record's sequence number, which goes on at 0 after the largest.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let base = self.base_sequence();
        if base < 0 { base } else { base.wrapping_add(self.last_offset_delta()) & i32::MAX }
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// A codec that is not known.
    pub fn codec(&self) -> Result<Codec, Problem> {
        let number = self.attributes() & CODEC_MASK;
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        Codec::ALL.get(at).copied().ok_or(Problem::UnknownCodec(number))
    }

    /// Whether timestamps are the broker's.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// Whether it holds a transaction's end instead of data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Whether the base timestamp is the time from which tombstones may go (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON != 0
    }

    /// The checksum its bytes have.
    #[must_use]
    pub fn computed_crc(&self) -> u32 {
        crc32c::crc32c(self.bytes.get(CRC_FROM..).unwrap_or_default())
    }

    /// Whether it is as it was written; what recovery asks.
    ///
    /// # Errors
    /// The checksum does not fit.
    pub fn check_crc(&self) -> Result<(), Problem> {
        let (stated, computed) = (self.crc(), self.computed_crc());
        if stated == computed { Ok(()) } else { Err(Problem::Checksum { stated, computed }) }
    }

    /// Whether a producer may store it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_crc()?;
        let attributes = self.attributes();
        if attributes & !KNOWN_ATTRIBUTES != 0 || attributes & (CONTROL | DELETE_HORIZON) != 0 {
            return Err(Problem::Attributes(attributes));
        }
        self.codec()?;
        let count = self.record_count();
        if count < 1 || self.last_offset_delta() != count - 1 {
            return Err(Problem::Count);
        }
        if self.max_timestamp() < -1 || self.is_log_append_time() {
            return Err(Problem::Timestamp);
        }
        let (id, epoch, sequence) =
            (self.producer_id(), self.producer_epoch(), self.base_sequence());
        let idempotent = id >= 0 && epoch >= 0 && sequence >= 0;
        let plain = id == -1 && !self.is_transactional();
        if idempotent || plain { Ok(()) } else { Err(Problem::Producer) }
    }

    /// The first bytes anew, with the place that the batch has in a log. What follows them stays as
    /// it is.
    #[must_use]
    pub fn placed(&self, base_offset: i64, leader_epoch: i32) -> [u8; PLACE_BYTES] {
        let mut place = [0; PLACE_BYTES];
        let offset = base_offset.to_be_bytes();
        let epoch = leader_epoch.to_be_bytes();
        let len = self.header.iter().skip(8).take(4);
        for (to, from) in place.iter_mut().zip(offset.iter().chain(len).chain(&epoch)) {
            *to = *from;
        }
        place
    }

    /// The whole header anew, with its place and with the broker's time instead of the producer's.
    #[must_use]
    pub fn placed_with_time(
        &self,
        base_offset: i64,
        leader_epoch: i32,
        now_ms: i64,
    ) -> [u8; HEADER_BYTES] {
        let mut header = *self.header;
        let attributes = (self.attributes() | LOG_APPEND_TIME).to_be_bytes();
        put(&mut header, 0, &self.placed(base_offset, leader_epoch));
        put(&mut header, ATTRIBUTES_AT, &attributes);
        put(&mut header, MAX_TIMESTAMP_AT, &now_ms.to_be_bytes());
        let head = header.get(CRC_FROM..).unwrap_or_default();
        let crc = crc32c::crc32c_append(crc32c::crc32c(head), self.body());
        put(&mut header, CRC_AT, &crc.to_be_bytes());
        header
    }
}
