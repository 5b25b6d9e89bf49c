//! Decides which hosts may become members of a cluster at run time. Pure: names are compared, never resolved.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::escape::Shortened;

/// The hosts of members that the client accepts although they were not configured. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission(Vec<Allowed>);

/// One rule: a host, a domain or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// The host with this name, in lower case.
    Host(Box<str>),
    /// Every host whose name ends with this text, which begins with a dot, in lower case.
    Domain(Box<str>),
    /// Every address that has its first bits in common with this one.
    Network(IpAddr, u8),
}

impl Admission {
    /// Parses rules: `name`, `*.domain`, an IP address, or a network as `address/bits`.
    pub(crate) fn parse<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        rules.into_iter().map(Allowed::parse).collect::<Result<_>>().map(Self)
    }

    /// Returns whether no host is allowed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the client accepts a member at this endpoint. An address is compared with networks, and a name
    /// with names; names are not resolved.
    pub(crate) fn admits(&self, endpoint: &Endpoint) -> bool {
        let Some(host) = endpoint.host() else { return false };
        self.0.iter().any(|allowed| allowed.admits(host))
    }
}

impl Allowed {
    fn parse(rule: &str) -> Result<Self> {
        let refuse = |remedy| Err(Error::invalid("allowed host", Shortened(rule), remedy));
        if let Some((address, bits)) = rule.split_once('/') {
            let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else {
                return refuse("write a network as address/bits, for example 10.1.0.0/16 or fd00::/8");
            };
            return match bits <= width(address) {
                true => Ok(Self::Network(address, bits)),
                false => refuse("give at most 32 bits for an IPv4 network, or 128 for an IPv6 network"),
            };
        }
        if let Ok(address) = rule.parse::<IpAddr>() {
            return Ok(Self::Network(address, width(address)));
        }
        let (domain, is_domain) = match rule.strip_prefix('*') {
            Some(domain) => (domain, true),
            None => (rule, false),
        };
        if domain.contains(':') {
            return refuse("write the host alone, without a port");
        }
        let labels = domain.strip_prefix('.').filter(|_| is_domain).unwrap_or(domain);
        let is_name =
            |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if (is_domain && !domain.starts_with('.')) || !labels.split('.').all(is_name) {
            return refuse("write a name, *.domain, an IP address, or a network like 10.1.0.0/16");
        }
        let name = domain.to_ascii_lowercase().into();
        Ok(match is_domain {
            true => Self::Domain(name),
            false => Self::Host(name),
        })
    }

    fn admits(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        match (self, address) {
            (Self::Network(network, bits), Some(address)) => is_within(address, *network, *bits),
            (Self::Host(name), None) => host.eq_ignore_ascii_case(name),
            (Self::Domain(domain), None) => {
                let host = host.to_ascii_lowercase();
                host.len() > domain.len() && host.ends_with(&**domain)
            }
            _ => false,
        }
    }
}

/// Returns the number of bits of an address.
fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Returns whether two addresses are of the same family and have the first `bits` bits in common.
fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differing = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    differing.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(rule: &str, address: &str) -> bool {
        Admission::parse([rule])
            .unwrap()
            .admits(&Endpoint::parse(address).unwrap())
    }

    #[test]
    fn names_domains_addresses_and_networks_admit_the_hosts_that_match() {
        for (rule, within, without) in [
            (
                "a.example",
                vec!["a.example:1", "A.Example:2"],
                vec!["b.a.example:1", "a.example.org:1"],
            ),
            (
                "*.locks.example",
                vec!["m-0.locks.example:1", "x.Y.LOCKS.example:1"],
                vec!["locks.example:1", "evillocks.example:1"],
            ),
            ("10.1.2.3", vec!["10.1.2.3:1"], vec!["10.1.2.4:1"]),
            (
                "10.1.0.0/16",
                vec!["10.1.0.1:1", "10.1.255.255:9"],
                vec!["10.2.0.1:1", "[::1]:1"],
            ),
            ("0.0.0.0/0", vec!["8.8.8.8:1"], vec!["name.example:1", "[fd00::1]:1"]),
            ("fd00::/8", vec!["[fd12::9]:1"], vec!["[fe80::1]:1", "10.0.0.1:1"]),
            ("::1", vec!["[::1]:1"], vec!["[::2]:1"]),
        ] {
            for address in within {
                assert!(admits(rule, address), "{rule} {address}");
            }
            for address in without {
                assert!(!admits(rule, address), "{rule} {address}");
            }
            assert!(!admits(rule, "unix:/run/dflockd.sock"), "{rule}");
        }
        let nowhere = Admission::default();
        assert!(!nowhere.admits(&Endpoint::parse("a.example:1").unwrap()));
    }

    #[test]
    fn an_invalid_rule_is_refused_with_the_valid_form() {
        for (rule, remedy) in [
            ("", "a name"),
            ("*", "a name"),
            ("*example", "a name"),
            ("a..b", "a name"),
            ("a b", "a name"),
            ("a.example:6388", "without a port"),
            ("10.0.0.0/33", "at most 32"),
            ("10.0.0.0/x", "address/bits"),
            ("example/8", "address/bits"),
        ] {
            let error = Admission::parse([rule]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{rule:?}")) && error.contains(remedy),
                "{error}"
            );
        }
    }
}
