//! Who leads a partition, and where that broker is: hints in responses that spare a client a look at the metadata.
//!
//! Both are tagged fields, so that a client that does not know them passes over them. Source: KIP-951;
//! ProduceResponse.json and FetchResponse.json of Kafka 4.3. Next: `produce` and `fetch`, whose responses have
//! them.

use super::list::List;
use super::{Malformed, Reader, Writer};

/// Number of a broker and its epoch as a leader.
pub(super) type Leader = (i32, i32);

/// Bytes of a [`Leader`] in a tagged field: two numbers, and no tagged fields of its own.
const LEADER_BYTES: u32 = 9;

/// Where a broker is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Number of the broker.
    pub broker_id: i32,
    /// Its host's name or address.
    pub host: &'a str,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<&'a str>,
}

pub(super) fn write_leader(out: &mut Vec<u8>, tag: u32, (broker_id, epoch): Leader) {
    out.unsigned_varint(tag);
    out.unsigned_varint(LEADER_BYTES);
    out.i32(broker_id);
    out.i32(epoch);
    out.no_tagged_fields(true);
}

pub(super) fn read_leader(mut field: Reader<'_>) -> Result<Leader, Malformed> {
    Ok((field.i32()?, field.i32()?))
}

/// Appends the tagged fields that end a response: where brokers are, if any are to be named.
pub(super) fn write_endpoints(out: &mut Vec<u8>, endpoints: &[Endpoint<'_>]) {
    if endpoints.is_empty() {
        return out.no_tagged_fields(true);
    }
    // Only answers to a client that asked the wrong broker come here: the allocation is for its sake.
    let mut field = Vec::new();
    field.array_len(endpoints.len(), true);
    for endpoint in endpoints {
        field.i32(endpoint.broker_id);
        field.string(endpoint.host, true);
        field.i32(endpoint.port);
        field.nullable_string(endpoint.rack, true);
        field.no_tagged_fields(true);
    }
    out.unsigned_varint(1);
    out.unsigned_varint(0);
    out.unsigned_varint(u32::try_from(field.len()).unwrap_or(u32::MAX));
    out.raw(&field);
}

/// Reads what [`write_endpoints`] writes. A version without endpoints may have another field of that tag, and
/// one that is not flexible has none.
pub(super) fn read_endpoints<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    flexible: bool,
    known: bool,
) -> Result<List<'a, Endpoint<'a>>, Malformed> {
    let mut endpoints = List::empty(read_endpoint);
    if flexible {
        reader.tagged_fields(|tag, mut field| {
            if tag == 0 && known {
                endpoints = List::read(&mut field, version, true, read_endpoint)?;
            }
            Ok(())
        })?;
    }
    Ok(endpoints)
}

fn read_endpoint<'a>(reader: &mut Reader<'a>, _version: i16) -> Result<Endpoint<'a>, Malformed> {
    let broker_id = reader.i32()?;
    let host = reader.string(true)?;
    let port = reader.i32()?;
    let rack = reader.nullable_string(true)?;
    reader.skip_tagged_fields(true)?;
    Ok(Endpoint { broker_id, host, port, rack })
}
