//! Tests of the cryptographic provider that TLS uses, and of the verifier of certificates. Both depend on the features
//! of the crate, so `.ci/run` runs these tests with several sets of features.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fmt;
use std::sync::{Arc, Mutex};

use dflockd_client::rustls::crypto::{CryptoProvider, ring};
use dflockd_client::rustls::server::{ClientHello, ResolvesServerCert};
use dflockd_client::rustls::sign::CertifiedKey;
use dflockd_client::rustls::version::{TLS12, TLS13};
use dflockd_client::rustls::{CipherSuite, NamedGroup, ServerConfig};
use dflockd_client::server::{Server, ServerTls};
use dflockd_client::{Client, ClientBuilder, Tls};
use support::pki::{Authority, Folder, HERE, Identity, Presented, trusting};
use support::process::is_alone_with;
use support::proxy::Proxy;
use support::until;

const HAS_PROVIDER: bool = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));

fn client(address: &str, tls: Tls) -> ClientBuilder {
    Client::builder().servers([address]).tls(tls)
}

fn server_config(identity: &Identity) -> dflockd_client::Result<Arc<ServerConfig>> {
    ServerTls::pem(&*identity.certificate, &*identity.key).config()
}

async fn served(config: Arc<ServerConfig>) -> (Server, String) {
    let server = Server::builder().port(0).tls(config).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

async fn locks_and_unlocks(builder: ClientBuilder) {
    let client = builder.connect().await.unwrap();
    client
        .lock("k")
        .unwrap()
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// What a client offers in its handshake.
type Offer = (Vec<CipherSuite>, Vec<NamedGroup>);

/// Records the offers of all clients that connect to a server.
#[derive(Clone)]
struct Offers {
    presented: Presented,
    noted: Arc<Mutex<Vec<Offer>>>,
}

impl Offers {
    fn to(identity: &Identity) -> Self {
        Self {
            presented: Presented::new(identity),
            noted: Arc::default(),
        }
    }

    /// Returns a configuration that never resumes a session, so that each connection has a full handshake.
    fn config(&self) -> Arc<ServerConfig> {
        let mut config = self.presented.forgetful_server_config(&[&TLS13, &TLS12]);
        config.cert_resolver = Arc::new(self.clone());
        Arc::new(config)
    }

    fn last(&self) -> Offer {
        self.noted.lock().unwrap().last().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.noted.lock().unwrap().len()
    }
}

impl ResolvesServerCert for Offers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let groups = hello.named_groups().unwrap_or_default().to_vec();
        self.noted
            .lock()
            .unwrap()
            .push((hello.cipher_suites().to_vec(), groups));
        self.presented.resolve(hello)
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offers")
    }
}

/// Returns whether a configuration has the provider with this name. The debug text of its random source contains the
/// name.
fn is_named(config: &ServerConfig, name: &str) -> bool {
    format!("{:?}", config.crypto_provider().secure_random).contains(name)
}

#[tokio::test]
async fn client_and_server_use_the_provider_that_they_were_built_with() {
    if !HAS_PROVIDER {
        return;
    }
    assert!(CryptoProvider::get_default().is_none(), "none is installed");
    let is_aws_lc = cfg!(feature = "tls-aws-lc-rs");
    let authority = Authority::new("ours");
    let identity = authority.issue(HERE);

    let config = server_config(&identity).unwrap();
    assert!(is_named(&config, if is_aws_lc { "AwsLc" } else { "Ring" }));
    let (_server, address) = served(config).await;
    locks_and_unlocks(client(&address, trusting(&authority))).await;

    let offers = Offers::to(&identity);
    let (_server, address) = served(offers.config()).await;
    locks_and_unlocks(client(&address, trusting(&authority))).await;
    let (_, groups) = offers.last();
    assert_eq!(groups.contains(&NamedGroup::X25519MLKEM768), is_aws_lc, "{groups:?}");
    assert!(CryptoProvider::get_default().is_none(), "none was installed");
}

#[test]
fn a_provider_that_the_process_has_installed_is_used_instead_of_the_built_in_one() {
    let name = "a_provider_that_the_process_has_installed_is_used_instead_of_the_built_in_one";
    if !is_alone_with(name, &[]) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (authority, folder) = (Authority::new("ours"), Folder::new());
        let identity = authority.issue(HERE);
        let offers = Offers::to(&identity);
        let (_server, address) = served(offers.config()).await;
        let proxy = Proxy::start(&address).await;
        let file = folder.write("ca.pem", &authority.pem());
        let early = client(&proxy.address, Tls::new().ca_file(&file));
        let early = match HAS_PROVIDER {
            true => Some(early.connect().await.unwrap()),
            false => None,
        };

        let provider = CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
            ..ring::default_provider()
        };
        provider.install_default().unwrap();
        let config = server_config(&identity).unwrap();
        assert_eq!(config.crypto_provider().cipher_suites.len(), 1);
        let (_server, own) = served(config).await;
        locks_and_unlocks(client(&own, trusting(&authority))).await;
        locks_and_unlocks(client(&address, trusting(&authority))).await;
        let only = |suite| suite != CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV;
        let (suites, _) = offers.last();
        let suites: Vec<_> = suites.into_iter().filter(|suite| only(*suite)).collect();
        assert_eq!(suites, [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256]);

        // A client that connected before the installation keeps its provider, even when its certificate files change.
        let Some(early) = early else { return };
        folder.write("ca.pem", &format!("{}\n", authority.pem()));
        let before = offers.count();
        proxy.cut();
        until("it is connected again", || {
            offers.count() > before && early.health()[0].is_connected()
        })
        .await;
        assert!(offers.last().0.len() > 2, "{:?}", offers.last());
    });
}

#[tokio::test]
async fn without_a_provider_the_error_names_the_features_and_the_function_that_help() {
    if HAS_PROVIDER {
        return;
    }
    let authority = Authority::new("ours");
    let identity = authority.issue(HERE);
    let url = "dflockds://127.0.0.1:1/";
    for error in [
        client("127.0.0.1:1", trusting(&authority)).build().map(drop),
        client("127.0.0.1:1", Tls::system_roots()).build().map(drop),
        ClientBuilder::from_url(url).and_then(ClientBuilder::build).map(drop),
        server_config(&identity).map(drop),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), dflockd_client::ErrorKind::InvalidInput);
        for part in ["tls-ring", "tls-aws-lc-rs", "CryptoProvider::install_default"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    // A configuration that the program makes itself contains a provider.
    let (_server, address) = served(Arc::new(identity.server_config(&[&TLS13]))).await;
    locks_and_unlocks(client(&address, Tls::config(client_config(&authority)))).await;
    // Without TLS, no provider is needed.
    let plain = Server::builder().port(0).start().await.unwrap();
    locks_and_unlocks(Client::builder().servers([plain.local_addr().to_string()])).await;
}

fn client_config(authority: &Authority) -> Arc<dflockd_client::rustls::ClientConfig> {
    use dflockd_client::rustls::pki_types::pem::PemObject;
    use dflockd_client::rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(certificate.unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(feature = "tls-platform-verifier")]
mod platform {
    use super::*;

    async fn refused(builder: ClientBuilder) -> String {
        builder.connect().await.unwrap_err().to_string()
    }

    /// On Linux, `SSL_CERT_FILE` names the file of certificates that the platform trusts.
    #[test]
    fn the_platforms_verifier_takes_what_the_platform_trusts_and_nothing_else() {
        let (folder, authority) = (Folder::new(), Authority::new("of the machine"));
        let bundle = folder.write("bundle.pem", &authority.pem());
        let own = authority.issue(HERE);
        let (certificate, key) = (
            folder.write("server.crt", &own.certificate),
            folder.write("server.key", &own.key),
        );
        let variables = [
            ("SSL_CERT_FILE", bundle.to_str().unwrap()),
            ("TEST_CERTIFICATE", certificate.to_str().unwrap()),
            ("TEST_KEY", key.to_str().unwrap()),
        ];
        let name = "platform::the_platforms_verifier_takes_what_the_platform_trusts_and_nothing_else";
        if !HAS_PROVIDER || !is_alone_with(name, &variables) {
            return;
        }
        let read = |name: &str| std::fs::read_to_string(std::env::var(name).unwrap()).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let trusted = Identity {
                certificate: read("TEST_CERTIFICATE"),
                key: read("TEST_KEY"),
            };
            let (_server, address) = served(server_config(&trusted).unwrap()).await;
            locks_and_unlocks(client(&address, Tls::platform_verifier())).await;
            let url = format!("dflockds://{address}/?tls_platform_verifier=true");
            locks_and_unlocks(ClientBuilder::from_url(&url).unwrap()).await;
            let misnamed = client(&address, Tls::platform_verifier().server_name("elsewhere.example"));
            assert!(refused(misnamed).await.contains("elsewhere.example"));

            let others = Authority::new("others");
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let self_signed = Identity {
                certificate: made.cert.pem(),
                key: made.signing_key.serialize_pem(),
            };
            for stranger in [others.issue(HERE), self_signed] {
                let (_server, address) = served(server_config(&stranger).unwrap()).await;
                let error = refused(client(&address, Tls::platform_verifier())).await;
                assert!(error.contains("unknown issuer"), "{error}");
            }
            // The client also trusts other authorities that its configuration names.
            let (_server, theirs) = served(server_config(&others.issue(HERE)).unwrap()).await;
            let both = Tls::platform_verifier().ca_pem(others.pem());
            locks_and_unlocks(client(&theirs, both.clone())).await;
            locks_and_unlocks(client(&address, both)).await;
        });
    }

    #[test]
    fn a_file_without_an_authority_is_named() {
        if !HAS_PROVIDER {
            return;
        }
        let folder = Folder::new();
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let tls = Tls::platform_verifier().ca_file(folder.write("nonsense.pem", nonsense));
        let error = Client::builder().tls(tls).build().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("nonsense.pem holds a certificate that cannot be trusted"),
            "{error}"
        );
    }

    #[test]
    fn a_platform_without_trusted_authorities_is_an_error() {
        let nowhere = [("SSL_CERT_FILE", "/nowhere/bundle.pem"), ("SSL_CERT_DIR", "/nowhere")];
        if !HAS_PROVIDER || !is_alone_with("platform::a_platform_without_trusted_authorities_is_an_error", &nowhere) {
            return;
        }
        let error = Client::builder().tls(Tls::platform_verifier()).build().unwrap_err();
        assert!(
            error.to_string().contains("the platform's verifier cannot be used"),
            "{error}"
        );
    }
}

#[cfg(not(feature = "tls-platform-verifier"))]
#[test]
fn the_error_for_a_url_with_the_platforms_verifier_names_the_feature() {
    if !HAS_PROVIDER {
        return;
    }
    let url = "dflockds://127.0.0.1:1/?tls_platform_verifier=true";
    let error = ClientBuilder::from_url(url).unwrap().build().unwrap_err();
    assert!(error.to_string().contains("feature tls-platform-verifier"), "{error}");
}
