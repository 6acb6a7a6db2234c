//! The one place that knows rustls: TLS 1.2 and 1.3 on the `ring` provider.
//!
//! Its interface without buffers was tried and left: it wants a handshake message that is not whole handed in again at every
//! call, also to send, and panics otherwise. The one used keeps 4 KiB of an idle connection, and copies no more.
//!
//! Sessions are resumed by tickets alone, whose keys all shards share, so that a client that comes back may meet
//! another shard. Randomness is ring's and time the system's, not the engine's: certificates and keys are nothing that a
//! seed may predict. That is why the simulation runs without TLS. Bounds that rustls keeps: a handshake message has 64 KiB
//! at most, a record 16 KiB; renegotiation is refused; runs of empty records, of warnings and of key updates end
//! the connection. Next: `secure`.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::{Channel, Refusal, Stage, Tls, TlsFiles};
use crate::error::{Error, Kind};

/// Longest file of certificates or keys that is read.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// What records add to what they hold, above what any cipher adds.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Longest content of a record (RFC 8446, 5.1).
const RECORD_MAX_BYTES: usize = 16 << 10;

pub(super) fn load(files: &TlsFiles) -> Result<Arc<dyn Tls>, Error> {
    Ok(Arc::new(Rustls(Arc::new(config(files)?))))
}

struct Rustls(Arc<ServerConfig>);

fn config(files: &TlsFiles) -> Result<ServerConfig, Error> {
    let chain = certificates(&files.cert)?;
    let key = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong(&files.key, "no private key in PEM form")
            .remedied("give the file that begins with -----BEGIN PRIVATE KEY----- (not encrypted)"),
        error => wrong(&files.key, error),
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new("tls", Kind::Unsupported, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match files.client_optional {
                true => verifier.allow_unauthenticated(),
                false => verifier,
            };
            let verifier = verifier.build().map_err(|error| wrong(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let problem = format!("{} is not the key of the certificate", files.key.display());
            wrong(&files.cert, problem).remedied("give the key that the certificate was made with")
        }
        error => wrong(&files.cert, error),
    })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()
        .map_err(|error| Error::new("tls", Kind::Exhausted, error.to_string()))?;
    Ok(config)
}

fn wrong(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::new("tls", Kind::Invalid, format!("{}: {problem}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::io("open", source, path.display().to_string());
    let len = fs::metadata(path).map_err(failed)?.len();
    if len > FILE_MAX_BYTES {
        return Err(wrong(path, format!("{len} bytes, of {FILE_MAX_BYTES} that are read")));
    }
    fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| wrong(path, error))?;
    if all.is_empty() {
        return Err(wrong(path, "no certificate in PEM form")
            .remedied("give the file that begins with -----BEGIN CERTIFICATE-----"));
    }
    Ok(all)
}

impl Tls for Rustls {
    fn accept(&self) -> Option<Box<dyn Channel>> {
        let mut end = ServerConnection::new(Arc::clone(&self.0)).ok()?;
        // What is sealed at a time is bounded by who seals.
        end.set_buffer_limit(None);
        Some(Box::new(End(end)))
    }
}

struct End(ServerConnection);

impl End {
    fn stage(&self, peer_closed: bool) -> Stage {
        if self.0.is_handshaking() {
            // Also where TLS 1.3 would let us send before the peer has proved anything.
            Stage::Handshake
        } else if peer_closed {
            Stage::PeerClosed
        } else {
            Stage::Open
        }
    }

    fn take_records(&mut self, input: &[u8], plain: &mut BytesMut) -> Result<Stage, rustls::Error> {
        let (mut rest, mut peer_closed) = (input, false);
        while !rest.is_empty() && !peer_closed {
            if let Err(error) = self.0.read_tls(&mut rest) {
                return Err(rustls::Error::General(error.to_string()));
            }
            let state = self.0.process_new_packets()?;
            peer_closed = state.peer_has_closed();
            let mut reader = self.0.reader();
            // No bytes, no more for now, or no more at all.
            while let Ok(chunk) = reader.fill_buf()
                && !chunk.is_empty()
            {
                let len = chunk.len();
                plain.extend_from_slice(chunk);
                reader.consume(len);
            }
        }
        Ok(self.stage(peer_closed))
    }

    /// Appends what is encoded to `out`.
    fn give(&mut self, out: &mut Vec<u8>) {
        // A vector takes everything.
        while self.0.wants_write() && self.0.write_tls(out).is_ok_and(|written| written > 0) {}
    }
}

impl Channel for End {
    fn open(
        &mut self,
        input: &[u8],
        plain: &mut BytesMut,
        answer: &mut Vec<u8>,
    ) -> Result<Stage, Refusal> {
        let taken = self.take_records(input, plain);
        self.give(answer);
        taken.map_err(|error| Refusal(error.to_string()))
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), Refusal> {
        let before = sealed.len();
        sealed.reserve(plain.len() + (plain.len() / RECORD_MAX_BYTES + 1) * RECORD_OVERHEAD_BYTES);
        let written = self.0.writer().write_all(plain);
        self.give(sealed);
        // TLS 1.2 has no new keys for a connection that has used up its own: then a goodbye is all there is.
        if written.is_err() || sealed.len() - before < plain.len() {
            return Err(Refusal("the connection's keys are used up".into()));
        }
        Ok(())
    }

    fn close(&mut self, sealed: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.give(sealed);
    }
}
