//! What HTTP/1.1 and HTTP/2 share: what is requested, and whether a reply is the right one.
//!
//! A reply is right when its status is, and its body has the length and the bytes that were
//! announced to the generator, as far as they were. A POST carries a value as its body; of its
//! reply the status counts alone.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::{Asked, Verdict};
use crate::load::arena::key_name;

/// Stands for the request's key in a path.
const KEY_MARK: &str = "{key}";
/// The longest path or host: a request's head then fits one HTTP/2 frame.
const TEXT_MAX_BYTES: usize = 4096;

/// How requests without a body ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD, whose reply has no body.
    Head,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
}

impl Method {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// What is requested over HTTP, and what must come back.
#[derive(Clone, Debug, Serialize)]
pub struct Http {
    /// Path and query; `{key}` in it is replaced by the request's key.
    pub path: Cow<'static, str>,
    /// The host it is asked of.
    pub host: Cow<'static, str>,
    /// Of requests that are no POST.
    pub method: Method,
    /// The only right status; any of 200 to 299 without one.
    pub status: Option<u16>,
    /// Length of the body of replies to requests that are no POST, where it is known.
    pub body_len: Option<u64>,
    /// That body itself, where it is known.
    #[serde(skip)]
    pub body: Option<Bytes>,
}

impl Http {
    /// GET of `/`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            path: Cow::Borrowed("/"),
            host: Cow::Borrowed("localhost"),
            method: Method::Get,
            status: None,
            body_len: None,
            body: None,
        }
    }

    /// Whether requests can be made of it.
    ///
    /// # Errors
    /// The path or the host cannot stand in a request.
    pub fn check(&self) -> Result<(), String> {
        let fits = |text: &str| {
            text.len() <= TEXT_MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !self.path.starts_with('/') || !fits(&self.path) {
            return Err(format!("path {:?}: it begins with / and holds no blanks", self.path));
        }
        if self.host.is_empty() || !fits(&self.host) {
            return Err(format!("host {:?}: a name without blanks is needed", self.host));
        }
        Ok(())
    }

    /// Whether paths differ by key.
    pub(crate) fn has_key(&self) -> bool {
        self.path.contains(KEY_MARK)
    }

    /// The path for `key`.
    pub(super) fn path_of(&self, key: u32) -> Cow<'_, str> {
        if self.has_key() {
            let name = key_name(key);
            Cow::Owned(self.path.replace(KEY_MARK, &String::from_utf8_lossy(&name)))
        } else {
            Cow::Borrowed(&self.path)
        }
    }

    /// How `asked` asks.
    pub(super) const fn method_of(&self, asked: Asked) -> &'static str {
        if asked.set { "POST" } else { self.method.name() }
    }

    /// Whether the reply to `asked` can have a body.
    pub(super) fn has_body(&self, asked: Asked, status: u16) -> bool {
        (asked.set || self.method != Method::Head) && !matches!(status, 204 | 304)
    }

    /// The body `asked` must be answered with, where it is known.
    pub(super) fn body_of(&self, asked: Asked) -> Option<&[u8]> {
        if asked.set || self.method == Method::Head { None } else { self.body.as_deref() }
    }

    fn expected_len(&self, asked: Asked) -> Option<u64> {
        if asked.set || self.method == Method::Head {
            return None;
        }
        self.body.as_ref().map(|body| body.len() as u64).or(self.body_len)
    }

    fn is_right(&self, status: u16) -> bool {
        self.status.map_or((200..300).contains(&status), |right| right == status)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

/// A reply as far as it has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Zero until its head is there.
    pub(super) status: u16,
    /// Bytes of its body so far.
    len: u64,
    /// Its body differs from this byte on.
    differs_at: Option<u64>,
}

impl Reply {
    /// One whose head says `status`.
    pub(super) const fn begun(status: u16) -> Self {
        Self { status, len: 0, differs_at: None }
    }

    /// Whether it is right when its body has `len` bytes, and these are what is expected.
    pub(super) fn is_right_with(&self, http: &Http, asked: Asked, len: u64) -> bool {
        let expected = http.expected_len(asked);
        http.is_right(self.status) && expected.is_none_or(|expected| expected == len)
    }

    /// The next part of its body.
    #[inline]
    pub(super) fn take(&mut self, http: &Http, asked: Asked, part: &[u8]) {
        if let Some(body) = http.body_of(asked) {
            let at = usize::try_from(self.len).unwrap_or(usize::MAX);
            let expected = body.get(at..).and_then(|rest| rest.get(..part.len()));
            if expected != Some(part) && self.differs_at.is_none() {
                self.differs_at = Some(self.len);
            }
        }
        self.len += part.len() as u64;
    }

    /// What it is, now that it is complete.
    #[inline]
    pub(super) fn verdict(&self, http: &Http, asked: Asked) -> Verdict {
        if !http.is_right(self.status) {
            return Verdict::Wrong(format!("status {}", self.status));
        }
        match (http.expected_len(asked), self.differs_at) {
            (Some(len), _) if len != self.len => {
                Verdict::Wrong(format!("a body of {} bytes, expected {len}", self.len))
            }
            (_, Some(at)) => Verdict::Wrong(format!("another body, seen from byte {at}")),
            _ => Verdict::Right,
        }
    }
}
