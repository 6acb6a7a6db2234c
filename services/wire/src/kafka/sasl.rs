//! The requests that carry a log-in: `SaslHandshake` names the mechanism, `SaslAuthenticate` carries its messages.
//!
//! A client that begins with version 0 of the former sends the messages that follow as bare frames, without a header
//! ([`write_bare`]). Sources: the message schemas of Kafka 4.3, KIP-152 for the second request, KIP-368 for how long a
//! log-in lasts. Next: [`crate::sasl`] for the mechanisms.

use super::api::{Api, SASL_AUTHENTICATE, SASL_HANDSHAKE};
use super::frame::{self, RequestHeader};
use super::{Malformed, Reader, Writer};

/// The mechanism that a client wants.
///
/// # Errors
/// It is cut.
pub fn read_handshake<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    reader.string(false)
}

/// Appends the whole answer to `SaslHandshake`.
pub fn write_handshake<'a>(
    out: &mut Vec<u8>,
    header: &RequestHeader<'_>,
    error: i16,
    mechanisms: impl ExactSizeIterator<Item = &'a str>,
) {
    let Some(api) = Api::find(SASL_HANDSHAKE) else { return };
    let start = frame::begin_response(out, api, header.version, header.correlation_id);
    out.i16(error);
    out.array_len(mechanisms.len(), false);
    mechanisms.for_each(|name| out.string(name, false));
    frame::end(out, start, 0);
}

/// The mechanism's message.
///
/// # Errors
/// It is cut.
pub fn read_authenticate<'a>(reader: &mut Reader<'a>, version: i16) -> Result<&'a [u8], Malformed> {
    let flexible = Api::find(SASL_AUTHENTICATE).is_some_and(|api| api.is_flexible(version));
    let message = reader.nullable_bytes(flexible)?.unwrap_or_default();
    reader.skip_tagged_fields(flexible)?;
    Ok(message)
}

/// What is answered to `SaslAuthenticate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authenticated<'a> {
    /// Zero if it goes on or is done.
    pub error: i16,
    /// What went wrong.
    pub error_message: Option<&'a str>,
    /// The server's message.
    pub message: &'a [u8],
    /// How long the log-in lasts; zero for ever. From version 1 on.
    pub lifetime_ms: i64,
}

impl Authenticated<'_> {
    /// Appends the whole answer to a request of this version and number.
    pub fn write(&self, out: &mut Vec<u8>, version: i16, correlation_id: i32) {
        let Some(api) = Api::find(SASL_AUTHENTICATE) else { return };
        let flexible = api.is_flexible(version);
        let start = frame::begin_response(out, api, version, correlation_id);
        out.i16(self.error);
        out.nullable_string(self.error_message, flexible);
        out.bytes(self.message, flexible);
        if version >= 1 {
            out.i64(self.lifetime_ms);
        }
        out.no_tagged_fields(flexible);
        frame::end(out, start, 0);
    }
}

/// Appends the server's message to a client that does not speak `SaslAuthenticate`.
pub fn write_bare(out: &mut Vec<u8>, message: &[u8]) {
    out.bytes(message, false);
}
