//! TLS between the socket and the session: records in, plaintext to the session; replies in, records out.
//!
//! Everything here sees two traits, [`Tls`] for a listener and [`Channel`] for one end of one connection; which library is
//! behind them is known to `provider` alone, and to no service. A session is the same with TLS and without: it
//! gets plaintext in its [`view::Input`] and leaves plaintext in its [`view::Output`]. Invariants: a channel does no I/O;
//! what it has encoded goes out before what it encodes later, since records are numbered; nothing is sealed
//! before the handshake is complete; a plain connection pays one look at an
//! empty pointer per batch. Next: `secure` for what a connection keeps, `host` for bytes in and out, `transfer` for
//! replies that lie in files.

mod host;
mod provider;
mod secure;
#[cfg(test)]
mod tests;
mod transfer;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;

pub(super) use secure::Secure;

use crate::error::Error;

/// Where a listener's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its authority, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Authorities of which every client must have a certificate, PEM; `None` to ask for none.
    pub client_ca: Option<PathBuf>,
    /// With authorities: a client without a certificate is served too, one with a bad certificate is not.
    pub client_optional: bool,
}

impl TlsFiles {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// A file cannot be read, holds no PEM of its kind, or key and certificate do not belong together.
    pub fn load(&self) -> Result<Arc<dyn Tls>, Error> {
        provider::load(self)
    }
}

/// What makes the ends of a listener's connections.
pub trait Tls: Send + Sync {
    /// Our end of a new connection; `None` when there is no memory for keys or the like.
    fn accept(&self) -> Option<Box<dyn Channel>>;
}

/// One end of one connection: bytes in, bytes out.
pub trait Channel {
    /// Takes all of `input`. What its records say is appended to `plain`, what must be answered to `answer`, on
    /// success and on failure.
    ///
    /// # Errors
    /// The peer breaks the protocol, cannot be trusted, or does not trust us.
    fn open(
        &mut self,
        input: &[u8],
        plain: &mut BytesMut,
        answer: &mut Vec<u8>,
    ) -> Result<Stage, Refusal>;

    /// Appends records that hold `plain` to `sealed`, once the handshake is complete.
    ///
    /// # Errors
    /// The keys are used up, or not there yet.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), Refusal>;

    /// Appends the record that says that nothing follows.
    fn close(&mut self, sealed: &mut Vec<u8>);
}

/// How far a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Keys are being agreed on.
    Handshake,
    /// Both may speak.
    Open,
    /// The peer has said that it will send no more.
    PeerClosed,
}

/// Why a channel can go on no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);
