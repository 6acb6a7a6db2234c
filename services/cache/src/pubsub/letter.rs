//! Messages as they go out: written once per protocol version, shared by all who get them.
//!
//! A payload of [`INLINE_MAX_BYTES`] and more is not even copied into the message: it goes out behind its head, by
//! reference from the allocation in which it came in. Next: `mail.rs` for where messages wait.

use bytes::Bytes;
use view::{INLINE_MAX_BYTES, Output};
use wire::resp::{Version, reply};

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// Something small, to be copied.
    Copy(&'a [u8]),
    /// Something large, to be shared.
    Shared(&'a Bytes),
}

/// A message in one version of the protocol. Cloning it shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parcel {
    head: Bytes,
    /// A large payload, whose line end is still to come; else empty.
    body: Bytes,
}

impl Parcel {
    /// A whole message.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self { head: bytes.into(), body: Bytes::new() }
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        let body = self.body.len();
        self.head.len() + if body == 0 { 0 } else { body + 2 }
    }

    /// Appends it to a connection's output.
    pub(crate) fn write(&self, out: &mut Output) {
        if self.head.len() < INLINE_MAX_BYTES {
            out.write(&self.head);
        } else {
            out.push(self.head.clone());
        }
        if !self.body.is_empty() {
            out.push(self.body.clone());
            reply::end(out.inline_mut());
        }
    }
}

/// What a letter says, and about what.
#[derive(Clone, Copy, Debug)]
struct Text<'a> {
    word: &'static str,
    pattern: Option<&'a [u8]>,
    channel: &'a [u8],
    payload: Payload<'a>,
}

/// A message to many, written for each version of the protocol when the first of its readers shows up.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    text: Text<'a>,
    resp2: Option<Parcel>,
    resp3: Option<Parcel>,
}

impl<'a> Letter<'a> {
    /// A message to a channel, for those who listen to it, or to a pattern of it.
    pub(crate) const fn message(
        word: &'static str,
        pattern: Option<&'a [u8]>,
        channel: &'a [u8],
        payload: Payload<'a>,
    ) -> Self {
        Self { text: Text { word, pattern, channel, payload }, resp2: None, resp3: None }
    }

    /// The message in one version.
    pub(crate) fn parcel(&mut self, version: Version) -> &Parcel {
        let text = self.text;
        let (place, other) = match version {
            Version::Resp2 => (&mut self.resp2, &self.resp3),
            Version::Resp3 => (&mut self.resp3, &self.resp2),
        };
        place.get_or_insert_with(|| match other {
            // Only the first byte differs.
            Some(other) => {
                let mut head = Vec::with_capacity(other.head.len());
                head.push(if version == Version::Resp3 { b'>' } else { b'*' });
                head.extend_from_slice(other.head.get(1..).unwrap_or_default());
                Parcel { head: head.into(), body: other.body.clone() }
            }
            None => text.write(version),
        })
    }
}

impl Text<'_> {
    fn write(self, version: Version) -> Parcel {
        let Self { word, pattern, channel, payload } = self;
        let names = pattern.map_or(0, <[u8]>::len) + channel.len();
        let inline = if let Payload::Copy(bytes) = payload { bytes.len() } else { 0 };
        let mut head = Vec::with_capacity(names + inline + 80);
        reply::push(&mut head, version, if pattern.is_some() { 4 } else { 3 });
        reply::bulk(&mut head, word.as_bytes());
        if let Some(pattern) = pattern {
            reply::bulk(&mut head, pattern);
        }
        reply::bulk(&mut head, channel);
        match payload {
            Payload::Copy(bytes) => {
                reply::bulk(&mut head, bytes);
                Parcel::whole(head)
            }
            Payload::Shared(bytes) => {
                reply::bulk_header(&mut head, bytes.len());
                Parcel { head: head.into(), body: bytes.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parcel: &Parcel) -> String {
        let mut out = Output::default();
        parcel.write(&mut out);
        assert_eq!(out.len(), parcel.len());
        String::from_utf8_lossy(&out.to_vec()).into_owned()
    }

    #[test]
    fn versions_differ_in_their_first_byte() {
        for first in [Version::Resp2, Version::Resp3] {
            let mut letter = Letter::message("message", None, b"ch", Payload::Copy(b"hi"));
            letter.parcel(first);
            let rest = "3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n";
            assert_eq!(text(letter.parcel(Version::Resp2)), format!("*{rest}"));
            assert_eq!(text(letter.parcel(Version::Resp3)), format!(">{rest}"));
        }
    }

    #[test]
    fn a_large_payload_is_shared_and_a_small_one_with_its_message() {
        for len in [INLINE_MAX_BYTES - 1, INLINE_MAX_BYTES] {
            let payload = Bytes::from(vec![b'x'; len]);
            let mut letter =
                Letter::message("pmessage", Some(b"c*"), b"ch", Payload::Shared(&payload));
            let parcel = letter.parcel(Version::Resp3).clone();
            assert_eq!(parcel.body.as_ptr(), payload.as_ptr(), "not copied");
            let whole = text(&parcel);
            assert!(whole.starts_with(">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n"));
            assert!(whole.ends_with("x\r\n"));
            let mut out = Output::default();
            parcel.write(&mut out);
            assert_eq!(out.is_inline(), len < INLINE_MAX_BYTES);
        }
    }
}
