//! Certificates and keys as PEM text.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::small_file::read_small_file;

/// The maximum size of a file: more than ten times the size of a bundle of all public authorities.
const LONGEST: usize = 4 * 1024 * 1024;

/// A source of PEM text. It is shown by its name, never with its content.
#[derive(Clone)]
pub(crate) enum Pem {
    File(PathBuf),
    Text(Arc<Zeroizing<Vec<u8>>>),
}

/// PEM text as it was read, wiped when it is dropped.
pub(crate) type PemText = Arc<Zeroizing<Vec<u8>>>;

impl Pem {
    pub(crate) fn text(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Text(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// Returns whether the source is a file, which may change.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// A description of the problem, with the name of the file.
    pub(crate) fn read(&self) -> Result<PemText, String> {
        match self {
            Self::Text(text) => Ok(Arc::clone(text)),
            Self::File(path) => read_small_file(path, LONGEST)
                .map(Arc::new)
                .map_err(|problem| format!("{self} cannot be read: {problem}")),
        }
    }

    /// Parses all certificates of a text that was read from this source. Returns an error if there are none.
    pub(crate) fn certificates(&self, text: &PemText) -> Result<Vec<CertificateDer<'static>>, String> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match all {
            Ok(all) if all.is_empty() => Err(format!("{self} holds no certificate in PEM form")),
            Ok(all) => Ok(all),
            Err(error) => Err(format!(
                "{self} holds no certificates in PEM form: {}",
                describe(&error)
            )),
        }
    }

    /// Parses the first private key of a text that was read from this source.
    pub(crate) fn private_key(&self, text: &PemText) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(text).map_err(|error| {
            format!(
                "{self} holds no private key in PEM form (PKCS #8, PKCS #1 or SEC1, not encrypted): {}",
                describe(&error)
            )
        })
    }
}

/// Describes why a certificate and a private key are refused. If the keys do not match, says that they do not belong
/// together. A key of an unsupported kind may match its certificate, so for such a key the text says less.
pub(crate) fn refused_pair(certificate: &Pem, key: &Pem, error: &rustls::Error) -> String {
    let problem = match error {
        rustls::Error::InconsistentKeys(_) => "do not belong together",
        _ => "cannot be used together",
    };
    format!("{certificate} and {key} {problem}: {error}")
}

/// Describes the mistake in PEM text, without the parser's own messages: some of them quote the text, which may be
/// a key.
fn describe(error: &rustls::pki_types::pem::Error) -> &'static str {
    use rustls::pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section begins with a broken line",
        Error::Base64Decode(_) => "a section is not base64",
        Error::NoItemsFound => "it contains no such section",
        _ => "it cannot be understood",
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Text(_) => f.write_str("the PEM text"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
