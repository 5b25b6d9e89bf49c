//! Explains failed handshakes: the cause and the remedy.

use std::error::Error as StdError;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};

use crate::error::{Error, ErrorKind};
use crate::escape::Shortened;
use crate::io_words::io_failed;

/// The maximum number of a certificate's names in a message: the peer's certificate may contain thousands.
const NAMES_TOLD: usize = 4;

/// Returns the error for a failed handshake.
pub(super) fn explain(error: io::Error) -> Error {
    match cause(&error) {
        Some(cause) => failed(cause),
        None => io_failed(
            ErrorKind::Connect,
            "the connection was lost in the TLS handshake",
            error,
        ),
    }
}

/// Returns the error for a server that answers without TLS.
pub(crate) fn no_tls() -> Error {
    Error::new(
        ErrorKind::Connect,
        "the server answers, but it does not speak TLS: check the port, and that the server serves TLS on it; if it does not, give \
         this client no TLS",
    )
    .fatal()
}

/// Returns the error for a connection that was lost before the first answer. With TLS 1.3, a server rejects a client
/// certificate, or the lack of one, in this way, because the client's handshake is complete by then.
pub(crate) fn explain_disconnect(error: &Error) -> Option<Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(cause) = inner.downcast_ref::<io::Error>().and_then(cause) {
            return Some(failed(cause));
        }
        source = inner.source();
    }
    None
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Returns the error for a cause. It is fatal if a person must act. The message has all details, so there is no source.
fn failed(cause: &rustls::Error) -> Error {
    use rustls::Error as Tls;
    let (message, passes) = match cause {
        Tls::InvalidCertificate(problem) => (certificate(problem), false),
        Tls::AlertReceived(alert) => alerted(*alert),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => return no_tls(),
        Tls::PeerIncompatible(problem) => (
            format!("the server and this client have no parameters of TLS 1.2 or 1.3 in common: {problem:?}"),
            false,
        ),
        other => (format!("the TLS handshake failed: {other}"), true),
    };
    let error = Error::new(ErrorKind::Connect, message);
    if passes { error } else { error.fatal() }
}

fn certificate(problem: &CertificateError) -> String {
    let clock = "renew it; if it is good, this machine's clock is wrong";
    match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            format!(
                "the server's certificate expired {} ago: {clock}",
                between(*not_after, *time)
            )
        }
        CertificateError::Expired => format!("the server's certificate has expired: {clock}"),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "the server's certificate is not valid yet, and becomes valid in {}: {clock}",
                between(*time, *not_before)
            )
        }
        CertificateError::NotValidYet => format!("the server's certificate is not valid yet: {clock}"),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not valid for {:?}, but for {}: address the server by a name in its \
             certificate, or give that name with Tls::server_name",
            expected.to_str(),
            names(presented),
        ),
        CertificateError::NotValidForName => {
            "the server's certificate is not valid for the name it is addressed by: give a name from the certificate \
             with Tls::server_name"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate comes from an unknown issuer: if it is yours, trust it with \
             Tls::ca_file; if not, another machine may be intercepting the connection to the server"
                .to_owned()
        }
        CertificateError::BadEncoding => "the server's certificate cannot be read: it is not encoded as one".to_owned(),
        CertificateError::Revoked => "the server's certificate has been revoked: renew it".to_owned(),
        CertificateError::BadSignature => {
            "the server's certificate is not signed by the key of its issuer: make the server present the whole chain, with \
             all certificates from one authority"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers: issue one whose extended key usage is serverAuth".to_owned()
        }
        CertificateError::Other(other) if is_an_authority(other) => {
            "the server presents the certificate of an authority (CA:TRUE) as its own, such as `openssl req -x509` makes: make one \
             with `-addext basicConstraints=critical,CA:FALSE` and trust that with Tls::ca_file, or have the authority issue one"
                .to_owned()
        }
        CertificateError::Other(other) => format!("the server's certificate cannot be accepted: {other}"),
        other => format!("the server's certificate cannot be accepted: {other}"),
    }
}

/// Returns whether the certificate is that of an authority. The verifier reports this only by the name of its error.
fn is_an_authority(error: &OtherError) -> bool {
    error.to_string() == "CaUsedAsEndEntity"
}

/// Explains an alert of the server, and returns whether its cause may go away by itself.
fn alerted(alert: AlertDescription) -> (String, bool) {
    use AlertDescription as Alert;
    let message = match alert {
        Alert::CertificateRequired => {
            "the server wants a client certificate: give one with Tls::client_certificate_files".to_owned()
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => format!(
            "the server refused this client's certificate, or requires one (alert {alert:?}): give one that is valid, of an \
             authority that the server trusts, with Tls::client_certificate_files"
        ),
        Alert::ProtocolVersion => "the server speaks no version of TLS that is still safe (1.2 or 1.3)".to_owned(),
        Alert::UnrecognisedName => {
            "the server does not know the name that it is addressed by: see Tls::server_name".to_owned()
        }
        other => {
            return (
                format!("the server ended the TLS handshake with the alert {other:?}"),
                true,
            );
        }
    };
    (message, false)
}

fn names(presented: &[String]) -> String {
    let mut told: Vec<String> = presented
        .iter()
        .take(NAMES_TOLD)
        .map(|name| format!("{:?}", Shortened(plain(name))))
        .collect();
    match presented.len() {
        0 => return "no name at all".to_owned(),
        all if all > NAMES_TOLD => told.push(format!("{} more", all - NAMES_TOLD)),
        _ => {}
    }
    told.join(", ")
}

/// Extracts the name from the verifier's forms `DnsName("…")` and `IpAddress(…)`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let inner = inner.unwrap_or(name);
    let quoted = inner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    quoted.unwrap_or(inner)
}

/// Describes the time between two moments.
fn between(earlier: UnixTime, later: UnixTime) -> String {
    let secs = later.as_secs().saturating_sub(earlier.as_secs());
    match secs {
        0..120 => format!("{secs} seconds"),
        120..7_200 => format!("{} minutes", secs / 60),
        7_200..172_800 => format!("{} hours", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_contains_only_a_few_of_very_many_names() {
        let many: Vec<String> = (0..1000).map(|n| format!("{n}.{}", "x".repeat(200))).collect();
        let told = names(&many);
        assert!(told.ends_with("996 more") && told.len() < 500, "{told}");
        assert_eq!(names(&[]), "no name at all");
        let few = [
            "DnsName(\"localhost\")",
            "IpAddress(127.0.0.1)",
            "DirectoryName",
            "DnsName(\"a\u{1b}b\")",
        ];
        let told = names(&few.map(str::to_owned));
        assert_eq!(told, r#""localhost", "127.0.0.1", "DirectoryName", "a\u{1b}b""#);
    }

    #[test]
    fn durations_are_shown_in_the_unit_that_fits() {
        let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        for (secs, told) in [
            (5, "5 seconds"),
            (300, "5 minutes"),
            (7_200, "2 hours"),
            (864_000, "10 days"),
        ] {
            assert_eq!(between(at(1), at(1 + secs)), told);
        }
    }

    #[test]
    fn a_lost_or_garbled_connection_is_retryable_and_a_rejection_is_fatal() {
        let lost = explain(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(lost.is_retryable() && !lost.is_fatal(), "{lost}");
        let garbled = explain(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError));
        assert!(garbled.is_retryable(), "{garbled}");
        let refused = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let verdict = explain(io::Error::new(io::ErrorKind::InvalidData, refused));
        assert!(
            verdict.is_fatal() && verdict.to_string().contains("UnknownCA"),
            "{verdict}"
        );
    }
}
