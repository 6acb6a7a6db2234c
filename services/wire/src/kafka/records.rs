//! The records of a batch that is not compressed, and batches made of records.
//!
//! ```text
//! record: length varint · attributes i8 · timestamp delta varlong · offset delta varint
//!         · key, value: length varint (-1 for null) and bytes · headers: number varint, each key and value
//! ```
//! Source: the documentation's "Record". Next: `batch` for what surrounds them.

use super::batch::{
    ATTRIBUTES_AT, BASE_TIMESTAMP_AT, Batch, COUNT_AT, CRC_AT, CRC_FROM, Codec, DELETE_HORIZON,
    FLAGS, LEN_AT, MAX_TIMESTAMP_AT, PREFIX_BYTES, put,
};
use super::{Malformed, Reader, Writer};

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset less that of the batch.
    pub offset_delta: i32,
    /// Timestamp less the batch's first.
    pub timestamp_delta: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

/// Headers of a record as they are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// Headers made of keys with values, encoded into `space`, whose contents are lost.
    pub fn encode<'h>(
        space: &'a mut Vec<u8>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) -> Self {
        space.clear();
        let mut count = 0;
        for (key, value) in headers {
            write_bytes(space, Some(key));
            write_bytes(space, value);
            count += 1;
        }
        Self { bytes: space, count }
    }

    /// The headers of the record at the front, which they end.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = usize::try_from(reader.varint()?)
            .map_err(|_| reader.malformed("the number of a record's headers"))?;
        let headers = reader.rest();
        for _ in 0..count {
            if bytes(reader)?.is_none() {
                return Err(reader.malformed("the key of a header"));
            }
            bytes(reader)?;
        }
        if !reader.rest().is_empty() {
            return Err(reader.malformed("the end of the record"));
        }
        Ok(Self { bytes: headers, count })
    }
}

impl<'a> Record<'a> {
    /// A record without headers.
    #[must_use]
    pub const fn new(
        offset_delta: i32,
        timestamp_delta: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Self {
        let headers = Headers { bytes: &[], count: 0 };
        Self { offset_delta, timestamp_delta, key, value, headers }
    }

    /// The same record with these headers.
    #[must_use]
    pub const fn with_headers(self, headers: Headers<'a>) -> Self {
        Self { headers, ..self }
    }

    /// The record at the front of `reader`.
    ///
    /// # Errors
    /// It is cut, or longer or shorter than it says.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let len = usize::try_from(reader.varint()?);
        let len = len.map_err(|_| reader.malformed("the length of a record"))?;
        let mut body = Reader::new(reader.take(len, "a record as long as announced")?);
        body.i8()?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = bytes(&mut body)?;
        let value = bytes(&mut body)?;
        let headers = Headers::read(&mut body)?;
        Ok(Self { offset_delta, timestamp_delta, key, value, headers })
    }

    /// Headers: keys with values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut reader = Reader::new(self.headers.bytes);
        (0..self.headers.count).map_while(move |_| {
            let key = bytes(&mut reader).ok()??;
            Some((key, bytes(&mut reader).ok()?))
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let header_count = i32::try_from(self.headers.count).unwrap_or(i32::MAX);
        let len = 1
            + varint_len(self.timestamp_delta)
            + varint_len(self.offset_delta.into())
            + bytes_len(self.key)
            + bytes_len(self.value)
            + varint_len(header_count.into())
            + self.headers.bytes.len();
        out.varint(i32::try_from(len).unwrap_or(i32::MAX));
        out.i8(0);
        out.varlong(self.timestamp_delta);
        out.varint(self.offset_delta);
        write_bytes(out, self.key);
        write_bytes(out, self.value);
        out.varint(header_count);
        out.raw(self.headers.bytes);
    }
}

/// Bytes that a number takes in zigzag form, of 32 bits or 64.
const fn varint_len(number: i64) -> usize {
    let bits = u64::BITS - ((number << 1 ^ number >> 63) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    let len = bytes.map_or(0, <[u8]>::len);
    let stated = if bytes.is_some() { i64::try_from(len).unwrap_or(i64::MAX) } else { -1 };
    varint_len(stated) + len
}

fn bytes<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    match reader.varint()? {
        -1 => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) => reader.take(len, "as many bytes as announced").map(Some),
            Err(_) => Err(reader.malformed("the length of bytes")),
        },
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.varint(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.raw(bytes);
        }
        None => out.varint(-1),
    }
}

/// The records of a body that is not compressed; ends with the first that cannot be read, so compare
/// their number with the batch's.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut reader = Reader::new(body);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || reader.rest().is_empty() {
            return None;
        }
        let record = Record::read(&mut reader);
        failed = record.is_err();
        Some(record)
    })
}

/// What a batch's header says beside what follows from its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Epoch of the leader.
    pub leader_epoch: i32,
    /// Timestamp that the records' are relative to, or the delete horizon.
    pub base_timestamp: i64,
    /// The largest timestamp.
    pub max_timestamp: i64,
    /// Offset of the last record less that of the first, records removed included.
    pub last_offset_delta: i32,
    /// The producer's id; -1 for none.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The first record's sequence number.
    pub base_sequence: i32,
    /// Flags beside the codec.
    pub flags: i16,
}

impl Default for BatchMeta {
    fn default() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: -1,
            base_timestamp: 0,
            max_timestamp: 0,
            last_offset_delta: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            flags: 0,
        }
    }
}

impl BatchMeta {
    /// What the header of `batch` says.
    #[must_use]
    pub fn of(batch: &Batch<'_>) -> Self {
        Self {
            base_offset: batch.base_offset(),
            leader_epoch: batch.leader_epoch(),
            base_timestamp: batch.base_timestamp(),
            max_timestamp: batch.max_timestamp(),
            last_offset_delta: batch.last_offset_delta(),
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            flags: batch.attributes() & FLAGS,
        }
    }
}

/// Appends a batch of `records`, not compressed.
pub fn write_batch<'a>(
    out: &mut Vec<u8>,
    meta: &BatchMeta,
    records: impl IntoIterator<Item = Record<'a>>,
) {
    let start = begin(out, meta, Codec::None);
    let mut count = 0;
    for record in records {
        record.write(out);
        count += 1;
    }
    end(out, start, count);
}

/// Appends a batch whose records are encoded, and perhaps compressed, already.
pub fn write_batch_of(
    out: &mut Vec<u8>,
    meta: &BatchMeta,
    codec: Codec,
    record_count: i32,
    body: &[u8],
) {
    let start = begin(out, meta, codec);
    out.raw(body);
    end(out, start, record_count);
}

/// Appends the header, whose length, checksum and number of records [`end`] sets.
fn begin(out: &mut Vec<u8>, meta: &BatchMeta, codec: Codec) -> usize {
    let start = out.len();
    out.i64(meta.base_offset);
    out.i32(0);
    out.i32(meta.leader_epoch);
    out.i8(2);
    out.u32(0);
    out.i16(meta.flags & FLAGS | codec as i16);
    out.i32(meta.last_offset_delta);
    out.i64(meta.base_timestamp);
    out.i64(meta.max_timestamp);
    out.i64(meta.producer_id);
    out.i16(meta.producer_epoch);
    out.i32(meta.base_sequence);
    out.i32(0);
    start
}

fn end(out: &mut [u8], start: usize, record_count: i32) {
    let batch = out.get_mut(start..).unwrap_or_default();
    let len = i32::try_from(batch.len().saturating_sub(PREFIX_BYTES)).unwrap_or(i32::MAX);
    put(batch, LEN_AT, &len.to_be_bytes());
    put(batch, COUNT_AT, &record_count.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default());
    put(batch, CRC_AT, &crc.to_be_bytes());
}

/// Appends what compaction leaves of `batch`: the records of its `body`, which is not compressed, that `keep` wants.
/// Offsets, sequence numbers and the producer stay, so that a log whose records are gone still tells a
/// repeated batch from a new one. With `delete_horizon_ms` the batch says from when its tombstones may go, unless it says so
/// already (KIP-534). The number of records left; zero leaves an empty batch.
///
/// # Errors
/// A record cannot be read; nothing was appended.
pub fn write_compacted<'a>(
    out: &mut Vec<u8>,
    batch: &Batch<'_>,
    body: &'a [u8],
    delete_horizon_ms: Option<i64>,
    mut keep: impl FnMut(&Record<'a>) -> bool,
) -> Result<i32, Malformed> {
    let mut meta = BatchMeta::of(batch);
    if let Some(horizon) = delete_horizon_ms
        && !batch.has_delete_horizon()
    {
        meta.base_timestamp = horizon;
        meta.flags |= DELETE_HORIZON;
    }
    // Deltas are relative to what the header says now.
    let moved = batch.base_timestamp().wrapping_sub(meta.base_timestamp);
    let start = begin(out, &meta, Codec::None);
    let (mut count, mut newest) = (0, i64::MIN);
    for record in records(body) {
        let mut record = record.inspect_err(|_| out.truncate(start))?;
        if keep(&record) {
            newest = newest.max(batch.base_timestamp().wrapping_add(record.timestamp_delta));
            record.timestamp_delta = record.timestamp_delta.wrapping_add(moved);
            record.write(out);
            count += 1;
        }
    }
    let header = out.get_mut(start..).unwrap_or_default();
    if count == 0 {
        // Nothing is relative to it any more, and no tombstone is left to go.
        put(header, BASE_TIMESTAMP_AT, &(-1_i64).to_be_bytes());
        put(header, ATTRIBUTES_AT, &(meta.flags & !DELETE_HORIZON).to_be_bytes());
    } else if !batch.is_log_append_time() {
        put(header, MAX_TIMESTAMP_AT, &newest.to_be_bytes());
    }
    end(out, start, count);
    Ok(count)
}
