//! What surrounds every message: the length in front of it and its header.
//!
//! Source: the protocol guide, "Request and Response Headers"; KIP-482 for flexible headers.

use super::api::Api;
use super::{Malformed, Reader, Writer};

/// Bytes of the length in front of a message.
pub const LEN_BYTES: usize = 4;

/// A frame announced longer than is taken, or of negative length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength(pub i32);

/// Length of the frame at the front of `bytes`, the four bytes of its length included; `None` when
/// they are not there yet.
///
/// # Errors
/// The message is empty, negative, or longer than `max_bytes`.
pub fn frame_len(bytes: &[u8], max_bytes: usize) -> Result<Option<usize>, BadLength> {
    let Some((len, _)) = bytes.split_first_chunk::<LEN_BYTES>() else { return Ok(None) };
    let len = i32::from_be_bytes(*len);
    match usize::try_from(len) {
        Ok(bytes) if bytes > 0 && bytes <= max_bytes => Ok(Some(LEN_BYTES + bytes)),
        _ => Err(BadLength(len)),
    }
}

/// What every request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Which request.
    pub key: i16,
    /// In which version.
    pub version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a request. The tagged fields at its end are there when the version
    /// is known and flexible.
    ///
    /// # Errors
    /// It is cut, or its client id is no text.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let client_id = reader.nullable_string(false)?;
        let flexible = Api::find(key).is_some_and(|api| api.is_flexible(version));
        reader.skip_tagged_fields(flexible)?;
        Ok(Self { key, version, correlation_id, client_id })
    }

    /// Appends the header, as a client.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.i16(self.key);
        out.i16(self.version);
        out.i32(self.correlation_id);
        out.nullable_string(self.client_id, false);
        let flexible = Api::find(self.key).is_some_and(|api| api.is_flexible(self.version));
        out.no_tagged_fields(flexible);
    }
}

/// Begins a request: leaves room for its length, and appends its header. [`end`] follows.
pub fn begin_request(out: &mut Vec<u8>, header: &RequestHeader<'_>) -> usize {
    let start = out.len();
    out.i32(0);
    header.write(out);
    start
}

/// Reads the header of the response to a request of `api` in `version`: the number that the request had.
///
/// # Errors
/// It is cut.
pub fn read_response_header(
    reader: &mut Reader<'_>,
    api: &Api,
    version: i16,
) -> Result<i32, Malformed> {
    let correlation_id = reader.i32()?;
    reader.skip_tagged_fields(api.has_flexible_response_header(version))?;
    Ok(correlation_id)
}

/// Begins a response: leaves room for its length, and appends its header. [`end`] follows.
pub fn begin_response(out: &mut Vec<u8>, api: &Api, version: i16, correlation_id: i32) -> usize {
    let start = out.len();
    out.i32(0);
    out.i32(correlation_id);
    // Clients that do not know the broker's versions must be able to read the answer about them.
    out.no_tagged_fields(api.has_flexible_response_header(version));
    start
}

/// Sets the length of the message begun at `start`, of which `elsewhere` bytes are not in `out`.
pub fn end(out: &mut [u8], start: usize, elsewhere: usize) {
    let len = out.len().saturating_sub(start + LEN_BYTES) + elsewhere;
    let len = i32::try_from(len).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(start..start + LEN_BYTES) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_when_its_length_is() {
        let frame = [0, 0, 0, 3, 1, 2, 3];
        for cut in 0..4 {
            assert_eq!(frame_len(&frame[..cut], 100), Ok(None));
        }
        assert_eq!(frame_len(&frame[..4], 100), Ok(Some(7)));
        assert_eq!(frame_len(&frame, 3), Ok(Some(7)));
        assert_eq!(frame_len(&frame, 2), Err(BadLength(3)));
        assert_eq!(frame_len(&[0; 4], 100), Err(BadLength(0)));
        assert_eq!(frame_len(&[0xff; 4], 100), Err(BadLength(-1)));
    }

    #[test]
    fn headers_come_back_and_every_cut_is_refused() {
        for (key, version) in [(18, 0), (18, 3), (0, 7), (0, 9), (3, 12), (999, 4)] {
            let header =
                RequestHeader { key, version, correlation_id: 77, client_id: Some("client") };
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            assert_eq!(RequestHeader::read(&mut Reader::new(&bytes)), Ok(header));
            for cut in 0..bytes.len() {
                assert!(RequestHeader::read(&mut Reader::new(&bytes[..cut])).is_err());
            }
        }
    }

    #[test]
    fn the_length_counts_what_lies_elsewhere() {
        let api = Api::find(1).expect("fetch");
        let mut out = b"before".to_vec();
        let start = begin_response(&mut out, api, 12, 5);
        out.extend_from_slice(b"body");
        end(&mut out, start, 1000);
        assert_eq!(out[6..10], (4 + 1 + 4 + 1000_i32).to_be_bytes());
    }
}
