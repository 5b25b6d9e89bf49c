//! Certificate authorities and certificates for tests.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dflockd_client::Tls;
use dflockd_client::rustls::crypto::ring;
use dflockd_client::rustls::pki_types::pem::PemObject;
use dflockd_client::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use dflockd_client::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use dflockd_client::rustls::sign::CertifiedKey;
use dflockd_client::rustls::{ServerConfig, SupportedProtocolVersion};
use dflockd_client::server::{Server, ServerBuilder, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM text.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a valid certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(names, |_| {})
    }

    pub fn expired(&self, names: &[&str]) -> Identity {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    pub fn not_valid_yet(&self, names: &[&str]) -> Identity {
        self.sign(names, |params| params.not_before = date_time_ymd(2500, 1, 1))
    }

    /// Returns the authority's own, self-signed certificate and its key. A server that uses them is like one with a
    /// certificate from `openssl req -x509`.
    pub fn as_a_server(&self) -> Identity {
        Identity {
            certificate: self.pem(),
            key: self.0.key().serialize_pem(),
        }
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    fn certified(&self) -> Arc<CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = ring::default_provider();
        Arc::new(CertifiedKey::from_der(chain.collect::<Result<_, _>>().unwrap(), key, &provider).unwrap())
    }

    /// Returns the configuration of a server that speaks only these versions of TLS.
    pub fn server_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        Presented::new(self).server_config(versions)
    }
}

/// The certificate that a server presents. A test can change the certificate while the server runs.
#[derive(Clone)]
pub struct Presented(Arc<Mutex<Arc<CertifiedKey>>>);

impl Presented {
    pub fn new(identity: &Identity) -> Self {
        Self(Arc::new(Mutex::new(identity.certified())))
    }

    pub fn change(&self, identity: &Identity) {
        *self.0.lock().unwrap() = identity.certified();
    }

    pub fn server_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()))
    }

    /// Returns a configuration without session resumption, so that every handshake is a full one.
    pub fn forgetful_server_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let mut config = self.server_config(versions);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented")
    }
}

/// The names in the certificates of most tests.
pub const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// Starts a server that presents this certificate.
pub async fn serve(builder: ServerBuilder, identity: &Identity) -> Server {
    let tls = ServerTls::pem(&*identity.certificate, &*identity.key).config().unwrap();
    builder.port(0).record_events(true).tls(tls).start().await.unwrap()
}

/// Returns a configuration that trusts this authority only.
pub fn trusting(authority: &Authority) -> Tls {
    Tls::new().ca_pem(authority.pem())
}

/// A temporary folder. Dropping this value removes the folder.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dflockd-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Replaces a file atomically.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let (path, new) = (self.path(name), self.path("new"));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
