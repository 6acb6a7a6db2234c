//! The records of a batch that is not compressed, and batches made of records.
//!
//! ```text
//! record: length varint · attributes i8 · timestamp delta varlong · offset delta varint
//!         · key, value: length varint (-1 for null) and bytes · headers: number varint, each key and value
//! ```
//! Source: the documentation's "Record". Next: `batch` for what surrounds them.

use super::batch::{Codec, HEADER_BYTES};
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
    /// Headers as they are.
    headers: &'a [u8],
    header_count: usize,
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
        Self { offset_delta, timestamp_delta, key, value, headers: &[], header_count: 0 }
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
        let header_count = usize::try_from(body.varint()?)
            .map_err(|_| body.malformed("the number of a record's headers"))?;
        let headers = body.rest();
        for _ in 0..header_count {
            if bytes(&mut body)?.is_none() {
                return Err(body.malformed("the key of a header"));
            }
            bytes(&mut body)?;
        }
        if !body.rest().is_empty() {
            return Err(body.malformed("the end of the record"));
        }
        Ok(Self { offset_delta, timestamp_delta, key, value, headers, header_count })
    }

    /// Headers: keys with values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut reader = Reader::new(self.headers);
        (0..self.header_count).map_while(move |_| {
            let key = bytes(&mut reader).ok()??;
            Some((key, bytes(&mut reader).ok()?))
        })
    }

    fn write(&self, body: &mut Vec<u8>, out: &mut Vec<u8>) {
        body.clear();
        body.i8(0);
        body.varlong(self.timestamp_delta);
        body.varint(self.offset_delta);
        write_bytes(body, self.key);
        write_bytes(body, self.value);
        body.varint(i32::try_from(self.header_count).unwrap_or(i32::MAX));
        body.raw(self.headers);
        out.varint(i32::try_from(body.len()).unwrap_or(i32::MAX));
        out.raw(body);
    }
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

/// Appends a batch of `records`, not compressed.
pub fn write_batch<'a>(
    out: &mut Vec<u8>,
    meta: &BatchMeta,
    records: impl IntoIterator<Item = Record<'a>>,
) {
    let mut count = 0;
    let mut body = Vec::new();
    let mut one = Vec::new();
    for record in records {
        record.write(&mut one, &mut body);
        count += 1;
    }
    write_batch_of(out, meta, Codec::None, count, &body);
}

/// Appends a batch whose records are encoded, and perhaps compressed, already.
pub fn write_batch_of(
    out: &mut Vec<u8>,
    meta: &BatchMeta,
    codec: Codec,
    record_count: i32,
    body: &[u8],
) {
    let mut covered = Vec::with_capacity(HEADER_BYTES + body.len());
    covered.i16(meta.flags | codec as i16);
    covered.i32(meta.last_offset_delta);
    covered.i64(meta.base_timestamp);
    covered.i64(meta.max_timestamp);
    covered.i64(meta.producer_id);
    covered.i16(meta.producer_epoch);
    covered.i32(meta.base_sequence);
    covered.i32(record_count);
    covered.raw(body);
    out.i64(meta.base_offset);
    out.i32(i32::try_from(covered.len() + 9).unwrap_or(i32::MAX));
    out.i32(meta.leader_epoch);
    out.i8(2);
    out.u32(crc32c::crc32c(&covered));
    out.raw(&covered);
}
