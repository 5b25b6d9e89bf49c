//! Addresses that users write: they are parsed, or rejected with a message that contains no secret.

use super::escapes::without_escapes;
use crate::net::endpoint::{Address, Endpoint};

/// Longer than any message about an address.
const LONGEST_MESSAGE: usize = 1_000;

/// Parses text as the address of a server.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Endpoint::parse(&text) {
        Ok(endpoint) => {
            assert_eq!(endpoint.as_str(), &*text);
            assert_eq!(endpoint.to_string(), *text);
            assert_eq!(Endpoint::parse(endpoint.as_ref()).ok().as_ref(), Some(&endpoint));
            assert!(
                !text.contains(char::is_control),
                "a control character was accepted: {text:?}"
            );
            match endpoint.address() {
                Address::Tcp { host, port } => {
                    let digits = text.rsplit(':').next().unwrap();
                    assert_eq!(digits.parse(), Ok(*port));
                    assert!(*port > 0 && !host.is_empty());
                    assert!(
                        !host.contains(['/', '@', ',', ';', '[', ']']) && !host.contains(char::is_whitespace),
                        "{host:?}"
                    );
                    assert!(
                        *text == format!("{host}:{digits}") || *text == format!("[{host}]:{digits}"),
                        "{host:?}"
                    );
                }
                Address::Unix(path) => {
                    assert!(path.is_absolute());
                    assert_eq!(endpoint.host(), None);
                }
            }
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() <= LONGEST_MESSAGE, "{said}");
            if let Some((secret, shown)) = text.rsplit_once('@').filter(|_| !text.starts_with("unix:")) {
                // The message may show the text after the @, so a secret that is also there is not checked. A short
                // text is not checked either, because it may be a word of the message itself.
                let is_telling = secret.len() >= 20 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
                assert!(
                    !is_telling || shown.contains(secret) || !without_escapes(&said).contains(secret),
                    "{said}"
                );
            }
        }
    }
}
