//! Certificates and keys as PEM text, and authentication tokens: they are parsed, or rejected with a message that
//! quotes none of them.

use crate::protocol::AuthToken;
use crate::tls::Tls;

/// Longer than any word that messages and their input may have in common.
const TELLING: usize = 20;

/// Parses bytes as each part of a TLS configuration, and as a token. A zero byte ends the certificate, and the rest is
/// the key.
pub fn pem(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (certificate, key) = data.split_at(end);
    let key = key.strip_prefix(b"\0").unwrap_or(certificate);
    let authority = Tls::new().ca_pem(certificate);
    quotes_nothing(data, &format!("{authority:?}"));
    let client = Tls::new().ca_pem(AUTHORITY).client_certificate_pem(certificate, key);
    quotes_nothing(data, &format!("{client:?}"));
    for tls in [authority, client] {
        if let Err(error) = tls.check() {
            quotes_nothing(data, &error.to_string());
            quotes_nothing(data, &format!("{error:?}"));
        }
    }
    if let Ok(secret) = std::str::from_utf8(data) {
        match AuthToken::new(secret) {
            Ok(token) => {
                assert_eq!(token.expose(), secret);
                quotes_nothing(data, &format!("{token:?}"));
            }
            Err(error) => quotes_nothing(data, &format!("{error} {error:?}")),
        }
    }
}

/// Asserts that the message contains no long run of letters and digits from the input.
fn quotes_nothing(data: &[u8], said: &str) {
    let is_of_a_secret = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    for run in data
        .split(|byte| !is_of_a_secret(byte))
        .filter(|run| run.len() >= TELLING)
    {
        for window in run.windows(TELLING) {
            let window = std::str::from_utf8(window).unwrap();
            assert!(!said.contains(window), "{window:?} is shown: {said}");
        }
    }
}

/// A valid certificate authority.
const AUTHORITY: &str = include_str!("authority.pem");
