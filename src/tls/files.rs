//! What of TLS can be said in a text: names of files.

/// Whom a client trusts, and what it presents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The authorities that this machine trusts.
    pub(crate) system_roots: bool,
    /// What this machine's operating system trusts, by its own verifier.
    pub(crate) platform_verifier: bool,
    /// A file with certificates of authorities.
    pub(crate) ca: Option<String>,
    /// A file with the certificate to present, and one with its key.
    pub(crate) client: Option<(String, String)>,
    /// The name that must stand in the servers' certificates.
    pub(crate) server_name: Option<String>,
}
