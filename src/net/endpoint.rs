//! The address of a server, as users write it.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::escape::{Shortened, is_hidden};

/// The port that servers listen on by default.
pub(crate) const DEFAULT_PORT: u16 = 6388;

/// The address of a server: as it was given to [`ClientBuilder::servers`](crate::ClientBuilder::servers) or
/// [`Shard`](crate::Shard), or as a cluster named one of its members. It has the form `host:port`, `1.2.3.4:port`,
/// `[v6]:port` or `unix:/path`. A [connector](crate::ClientBuilder::connector) gets one for each connection.
///
/// Cloning is cheap. Two endpoints are equal if their texts are. An endpoint is serialized as its text.
///
/// ```
/// use dflockd_client::Endpoint;
///
/// let endpoint: Endpoint = "[::1]:6388".parse()?;
/// assert_eq!((endpoint.host(), endpoint.port()), (Some("::1"), Some(6388)));
/// assert_eq!(endpoint.to_string(), "[::1]:6388");
///
/// let endpoint: Endpoint = "unix:/run/dflockd.sock".parse()?;
/// assert_eq!(endpoint.unix_path(), Some("/run/dflockd.sock".as_ref()));
/// # Ok::<(), dflockd_client::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint {
    text: Arc<str>,
    address: Address,
}

/// The location of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// An address on a network.
    Tcp {
        /// A name, or an IP address without brackets.
        host: Arc<str>,
        port: u16,
    },
    /// A socket in the file system.
    Unix(Arc<Path>),
}

impl Endpoint {
    /// Parses an address.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => parse_unix(text, path)?,
            None => parse_tcp(text)?,
        };
        Ok(Self {
            text: text.into(),
            address,
        })
    }

    /// Returns the text, which can be kept without a copy.
    pub(crate) fn shared_text(&self) -> &Arc<str> {
        &self.text
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the host, or otherwise the path. Traces call this the address of a server.
    pub(crate) fn address_text(&self) -> Option<&str> {
        match &self.address {
            Address::Tcp { host, .. } => Some(host),
            Address::Unix(path) => path.to_str(),
        }
    }

    /// Returns the address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name or address of the host, an IPv6 address without its brackets. `None` for a `unix:` path.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.address {
            Address::Tcp { host, .. } => Some(host),
            Address::Unix(_) => None,
        }
    }

    /// Returns the port, which is not 0. `None` for a `unix:` path.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.address {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// Returns the path of a socket in the file system, which begins with `/`. `None` for an address with a host.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.address {
            Address::Tcp { .. } => None,
            Address::Unix(path) => Some(path),
        }
    }
}

/// Parses an address as [`ClientBuilder::servers`](crate::ClientBuilder::servers) does.
///
/// # Errors
///
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), with a description of the mistake.
impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Parses an address, as [`FromStr`] does.
impl TryFrom<&str> for Endpoint {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// Parses an address, as [`FromStr`] does.
impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl AsRef<str> for Endpoint {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn parse_unix(text: &str, path: &str) -> Result<Address> {
    if !path.starts_with('/') || path.contains(is_hidden) {
        let remedy = "write unix: and the whole path of the socket, for example unix:/run/dflockd.sock";
        return Err(Error::invalid("server address", Shortened(text), remedy));
    }
    Ok(Address::Unix(Path::new(path).into()))
}

fn parse_tcp(text: &str) -> Result<Address> {
    let shown = without_secret(text);
    let refuse = |remedy: &str| Error::invalid("server address", Shortened(&shown), remedy);
    let form = "write host:port, for example 127.0.0.1:6388 or [::1]:6388";
    if let Some(remedy) = mistake(text) {
        return Err(refuse(remedy));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| refuse(form))?;
    let port = match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(refuse("the port must be a number from 1 to 65535")),
        Ok(port) => port,
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or_else(|| refuse(form))?;
            inner
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| refuse("the text between [ and ] is not an IPv6 address"))?;
            inner
        }
        None if is_like_ipv6(host) || text.parse::<std::net::Ipv6Addr>().is_ok() => {
            return Err(refuse("write an IPv6 address in brackets, like [::1]:6388"));
        }
        None if host.contains([':', '[', ']']) => return Err(refuse(form)),
        None => host,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || is_hidden(c)) {
        return Err(refuse(form));
    }
    Ok(Address::Tcp {
        host: host.into(),
        port,
    })
}

/// Returns the part of an address that may be shown: the text before an `@` may be a secret.
pub(crate) fn without_secret(address: &str) -> Cow<'_, str> {
    match address.rsplit_once('@') {
        Some((_, host)) if !address.starts_with("unix:") => format!("…@{host}").into(),
        _ => address.into(),
    }
}

/// Recognizes texts that are often mistaken for an address. Returns what to write instead.
fn mistake(text: &str) -> Option<&'static str> {
    if text.contains("://") {
        return Some(
            "write host:port alone, without a scheme; ClientBuilder::from_url takes URLs, and ClientBuilder::tls turns TLS on",
        );
    }
    if text.contains([',', ';']) || text.split_whitespace().count() > 1 {
        return Some("give each server by itself, as an item of the list of servers");
    }
    if text.contains('/') {
        return Some("write host:port alone, without a path");
    }
    text.contains('@')
        .then_some("write host:port alone, without a user; the auth token is given with ClientBuilder::auth_token")
}

fn is_like_ipv6(host: &str) -> bool {
    let digits = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    host.matches(':').count() > 1
        && host
            .split('%')
            .next()
            .is_some_and(|address| address.chars().all(digits))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_serialized_as_it_is_written_and_checked_when_it_is_read() {
        for text in ["127.0.0.1:6388", "[::1]:6388", "unix:/run/dflockd.sock"] {
            let endpoint = Endpoint::try_from(text).unwrap();
            assert_eq!((endpoint.as_ref(), endpoint.to_string().as_str()), (text, text));
            let json = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
        }
        let error = serde_json::from_str::<Endpoint>(r#""user@h:6388""#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("without a user") && !error.contains("user@h"), "{error}");
    }

    #[test]
    fn reads_names_and_addresses() {
        for (text, host, port) in [
            ("localhost:6388", "localhost", 6388),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
            ("locks-1.example.org:80", "locks-1.example.org", 80),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            let host = Arc::from(host);
            assert_eq!(*endpoint.address(), Address::Tcp { host, port });
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn reads_sockets_in_the_file_system() {
        let endpoint = Endpoint::parse("unix:/run/dflockd.sock").unwrap();
        assert_eq!(
            *endpoint.address(),
            Address::Unix(Path::new("/run/dflockd.sock").into())
        );
        assert_eq!(
            (endpoint.host(), endpoint.to_string().as_str()),
            (None, "unix:/run/dflockd.sock")
        );
    }

    #[test]
    fn explains_common_mistakes_in_addresses() {
        for (text, said) in [
            (
                "dflockd://h:6388",
                "without a scheme; ClientBuilder::from_url takes URLs",
            ),
            ("tcp://127.0.0.1:6388", "without a scheme"),
            ("https://h", "without a scheme"),
            ("a:1,b:2", "each server by itself, as an item of the list"),
            ("a:1, b:2", "each server by itself"),
            ("a:1;b:2", "each server by itself"),
            ("a:1 b:2", "each server by itself"),
            ("h:6388/db", "without a path"),
            ("user:secret@h:6388", "without a user"),
            ("::1:6388", "IPv6 address in brackets"),
            ("::1", "IPv6 address in brackets"),
            ("fe80::1:6388", "IPv6 address in brackets"),
            ("fe80::1%eth0:6388", "IPv6 address in brackets"),
            ("::ffff:10.0.0.1:6388", "IPv6 address in brackets"),
            ("h:1:2", "write host:port, for example"),
        ] {
            let error = Endpoint::parse(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(said), "{text}: {error}");
            assert_eq!(error.contains("brackets"), said.contains("brackets"), "{text}: {error}");
            assert!(!error.contains("secret@"), "{error}");
        }
    }

    #[test]
    fn refuses_invalid_addresses_and_shows_them() {
        for text in [
            "",
            "localhost",
            ":6388",
            "h:0",
            "h:65536",
            "h:x",
            "::1:6388",
            "[::1:6388",
            "[h]:1",
            "a b:1",
            "http://h:1",
            "unix:",
            "unix:relative.sock",
            "unix:6388",
            "unix:/run/\u{1b}[31m.sock",
            "h\u{202e}:1",
            "]:1",
            "h]:1",
            "h[1]:1",
        ] {
            let error = Endpoint::parse(text).err().map(|e| e.to_string());
            assert!(
                error.as_ref().is_some_and(|e| e.contains(&format!("{text:?}"))),
                "{text}: {error:?}"
            );
        }
    }
}
