//! Shards as one text, in URLs and in the environment: `a:6388+b:6388+c:6388,d:6388`.
//!
//! The grammar is in `docs/guide/src/configuration.md`.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::Shard;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;
use crate::net::endpoint::{DEFAULT_PORT, Endpoint, without_secret};
use crate::net::failover::Policy;
use crate::percent;

/// Separates shards.
const SHARDS: char = ',';
/// Separates the members of a cluster. Follows the member if there is only one.
const MEMBERS: char = '+';
/// Separates a primary and its standbys. Follows the server if there is only one.
const RESERVES: char = ';';

impl Shard {
    /// Parses shards.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, naming the invalid server or shard.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Self>> {
        refuse_secret(text)?;
        text.split(SHARDS).map(|shard| Self::read(shard.trim())).collect()
    }

    /// Parses one shard.
    pub(crate) fn read(text: &str) -> Result<Self> {
        refuse_secret(text)?;
        let refuse = |remedy| Err(Error::invalid("shard", Shortened(text), remedy));
        let (policy, separator) = match (text.contains(MEMBERS), text.contains(RESERVES)) {
            (false, false) => return Ok(Self::new(Policy::Single, [read_server(text)?])),
            (true, false) => (Policy::Cluster, MEMBERS),
            (false, true) => (Policy::Standby, RESERVES),
            (true, true) => {
                return refuse(
                    "write the members of a cluster, joined by +, or a primary and its standbys, joined by ;",
                );
            }
        };
        let mut servers: Vec<&str> = text.split(separator).map(str::trim).collect();
        // `a:6388+` is a cluster with one member.
        if servers.len() == 2 && servers[1].is_empty() {
            servers.pop();
        }
        if servers.iter().any(|server| server.is_empty()) {
            return refuse("a server is missing beside a separator");
        }
        let servers: Vec<String> = servers.into_iter().map(read_server).collect::<Result<_>>()?;
        Ok(Self::new(policy, servers))
    }

    /// Writes a shard, without its settings, in the form that [`read`](Self::read) accepts. If an invalid address
    /// contains a secret, the secret is left out.
    pub(crate) fn write(&self) -> String {
        let servers: Vec<Zeroizing<String>> = self
            .endpoints
            .iter()
            .map(|endpoint| match without_secret(endpoint) {
                Cow::Borrowed(address) => percent::encode(address, ":[]"),
                Cow::Owned(shown) => Zeroizing::new(shown),
            })
            .collect();
        let servers: Vec<&str> = servers.iter().map(|server| server.as_str()).collect();
        let separator = match self.policy {
            Policy::Single => return servers.concat(),
            Policy::Cluster => MEMBERS,
            Policy::Standby => RESERVES,
        };
        let mut text = servers.join(separator.encode_utf8(&mut [0; 4]));
        if servers.len() == 1 {
            text.push(separator);
        }
        text
    }

    /// Writes shards, without their settings, in the form that [`read_all`](Self::read_all) accepts.
    pub(crate) fn write_all(shards: &[Self]) -> String {
        let shards: Vec<String> = shards.iter().map(Self::write).collect();
        shards.join(SHARDS.encode_utf8(&mut [0; 4]))
    }
}

/// Rejects a text with an @. The part before the @ may be a secret, so the error does not show the text.
fn refuse_secret(text: &str) -> Result<()> {
    if text.contains('@') || text.contains("%40") && !text.contains("unix:") {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "a list of servers with an @ is not acceptable: write only the servers, and give the auth token separately",
        ));
    }
    Ok(())
}

/// Parses the address of a server. Without a port, the server has the default port.
fn read_server(text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::invalid(
            "server list",
            Shortened(text),
            "name at least one server, as host:port, and one between any two commas",
        ));
    }
    let decoded =
        percent::decode(text).map_err(|problem| Error::invalid("server address", Shortened(text), problem))?;
    let address = with_port(&decoded);
    Endpoint::parse(&address)?;
    Ok(address.into_owned())
}

fn with_port(server: &str) -> Cow<'_, str> {
    let has_port = match server.strip_prefix('[') {
        Some(rest) => !rest.ends_with(']'),
        None => server.contains(':'),
    };
    match has_port {
        true => server.into(),
        false => format!("{server}:{DEFAULT_PORT}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_servers_clusters_and_standbys_are_parsed() {
        let shards = Shard::read_all("a:1+b:2+c:3, d , e:5;f:6,[::1],unix:%2Frun%2Fd.sock,g:7+,h:8;").unwrap();
        assert_eq!(
            shards,
            [
                Shard::cluster(["a:1", "b:2", "c:3"]),
                Shard::single("d:6388"),
                Shard::standby(["e:5", "f:6"]),
                Shard::single("[::1]:6388"),
                Shard::single("unix:/run/d.sock"),
                Shard::cluster(["g:7"]),
                Shard::standby(["h:8"]),
            ]
        );
        assert_eq!(Shard::read_all(&Shard::write_all(&shards)).unwrap(), shards);
    }

    #[test]
    fn an_invalid_list_is_refused_with_the_reason() {
        for (text, named, remedy) in [
            ("", "\"\"", "at least one server"),
            ("a:1,,b:1", "\"\"", "between any two commas"),
            ("a:1+b:1;c:1", "\"a:1+b:1;c:1\"", "joined by +"),
            ("a:1,b:1++c:1", "\"b:1++c:1\"", "missing beside a separator"),
            ("+a:1", "\"+a:1\"", "missing beside a separator"),
            ("a:1+b:1+", "\"a:1+b:1+\"", "missing beside a separator"),
            ("+", "\"+\"", "missing beside a separator"),
            ("a:1+b:x", "\"b:x\"", "1 to 65535"),
            ("::1", "\"::1\"", "in brackets"),
            ("[::1", "\"[::1\"", "host:port"),
            ("a%4:1", "\"a%4:1\"", "hexadecimal"),
            ("unix:relative", "\"unix:relative\"", "the whole path"),
        ] {
            let error = Shard::read_all(text).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains(remedy), "{text}: {error}");
        }
        let error = Shard::read_all("dflockd://ses+ame@a:1").unwrap_err().to_string();
        assert!(
            error.contains("give the auth token separately") && !error.contains("ses"),
            "{error}"
        );
    }
}
