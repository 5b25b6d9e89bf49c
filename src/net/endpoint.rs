//! The address of a server, as users write it.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::Shortened;

/// `host:port`, `1.2.3.4:port` or `[v6]:port`. Names are resolved anew at each connect.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    text: Arc<str>,
    host: Arc<str>,
    port: u16,
}

impl Endpoint {
    /// Reads an address.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refuse = |remedy: &str| Error::invalid("server address", Shortened(text), remedy);
        let form = "write host:port, for example 127.0.0.1:6388 or [::1]:6388";
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
                    .map_err(|_| refuse("what stands between [ and ] is no IPv6 address"))?;
                inner
            }
            None if host.contains(':') => return Err(refuse("write an IPv6 address in brackets, like [::1]:6388")),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(refuse(form));
        }
        Ok(Self {
            text: text.into(),
            host: host.into(),
            port,
        })
    }

    /// As it was written.
    pub(crate) fn as_text(&self) -> &Arc<str> {
        &self.text
    }

    /// For the resolver.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
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
    fn reads_names_and_addresses() {
        for (text, host, port) in [
            ("localhost:6388", "localhost", 6388),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
            ("locks-1.example.org:80", "locks-1.example.org", 80),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.host_and_port(), (host, port));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_address_and_shows_it() {
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
        ] {
            let error = Endpoint::parse(text).err().map(|e| e.to_string());
            assert!(
                error.as_ref().is_some_and(|e| e.contains(&format!("{text:?}"))),
                "{text}: {error:?}"
            );
        }
    }
}
