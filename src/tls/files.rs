//! The TLS settings that have a text form. Certificates and keys are given as names of files.

/// Which authorities a client trusts, and which certificate it presents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Whether the client trusts the authorities that this machine trusts.
    pub(crate) system_roots: bool,
    /// Whether the operating system's own verifier decides.
    pub(crate) platform_verifier: bool,
    /// A file with certificates of authorities.
    pub(crate) ca: Option<String>,
    /// A file with the certificate to present, and one with its key.
    pub(crate) client: Option<(String, String)>,
    /// The name that the servers' certificates must contain.
    pub(crate) server_name: Option<String>,
}
