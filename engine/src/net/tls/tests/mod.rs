//! Encrypted connections, with a rustls client on the other side: the channel alone in `channel`, a server on a ring and in
//! rough simulated worlds in `server`, the files in `files`.
//!
//! The worlds cut and delay bytes by seed; what the bytes are is not repeatable, since keys are not, so nothing here
//! compares traces.

mod channel;
mod files;
mod server;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::{Tls, TlsFiles};
use crate::fs::testing::TempDir;

/// Who signs certificates of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
struct Identity {
    cert: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("randomness");
        Self(CertifiedIssuer::self_signed(params, key).expect("a valid authority"))
    }

    fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("randomness");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
        let cert = params.signed_by(&key, &self.0).expect("a valid certificate");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_slice(self.0.pem().as_bytes()).expect("valid PEM");
        roots.add(cert).expect("a valid authority");
        roots
    }
}

/// A server's files, and what a client needs to trust them.
struct World {
    dir: TempDir,
    authority: Authority,
    files: TlsFiles,
}

impl World {
    fn new(name: &str) -> Self {
        let dir = TempDir::new(&format!("tls-{name}"));
        let authority = Authority::new("ours");
        let Identity { cert, key } = authority.sign("localhost");
        let mut world = Self {
            files: TlsFiles {
                cert: PathBuf::new(),
                key: PathBuf::new(),
                client_ca: None,
                client_optional: false,
            },
            dir,
            authority,
        };
        world.files.cert = world.write("cert.pem", &cert);
        world.files.key = world.write("key.pem", &key);
        world
    }

    /// Asks clients for certificates of the same authority.
    fn mutual(mut self) -> Self {
        let path = self.write("ca.pem", &self.authority.0.pem());
        self.files.client_ca = Some(path);
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }

    fn tls(&self) -> Arc<dyn Tls> {
        self.files.load().expect("valid files")
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> Client {
        Client::new(client_config(version, self.authority.roots(), None))
    }

    fn client_as(&self, identity: &Identity) -> Client {
        let config = client_config(&rustls::version::TLS13, self.authority.roots(), Some(identity));
        Client::new(config)
    }
}

fn client_config(
    version: &'static SupportedProtocolVersion,
    roots: RootCertStore,
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("the provider has it")
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("valid PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("valid PEM");
            builder.with_client_auth_cert(vec![cert], key).expect("they belong together")
        }
    })
}

/// Somebody else's end, with buffers of its own.
struct Client(ClientConnection);

impl Client {
    fn new(config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a valid configuration");
        client.set_buffer_limit(None);
        Self(client)
    }

    fn say(&mut self, plain: &[u8]) {
        self.0.writer().write_all(plain).expect("the writer has no limit");
    }

    /// Records to be sent.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut records).expect("a vector takes everything");
        }
        records
    }

    /// Takes records, and returns what they say.
    fn hear(&mut self, mut records: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !records.is_empty() {
            let taken = self.0.read_tls(&mut records).expect("room");
            let state = self.0.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[start..]).expect("it is there");
            if taken == 0 {
                break;
            }
        }
        Ok(plain)
    }
}
