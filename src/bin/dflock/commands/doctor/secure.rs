//! `tls`: the handshake as clients make it, and the certificate that the server presents.
//!
//! The library's own TLS verifies the server and says what is wrong with its certificate. The expiry is read
//! here: rustls does not show it.

use std::time::{SystemTime, UNIX_EPOCH};

use dflockd_client::{ClientOptions, Endpoint, Error, Tls};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::report::{Check, Finding};
use super::stream::Stream;
use crate::exit::Exit;
use crate::failure::Failure;

/// How many days before its end a certificate should have been renewed.
const SOON: i64 = 14;

/// How many names of a certificate are shown. The others are only counted.
const NAMES_TOLD: usize = 4;

/// Whether connections are encrypted.
#[derive(Clone)]
pub(super) struct Secure(Option<Tls>);

/// The result of a handshake.
pub(super) struct Secured {
    pub(super) stream: Box<dyn Stream>,
    pub(super) finding: Finding,
}

impl Secure {
    pub(super) fn of(options: &ClientOptions) -> Self {
        Self(options.tls().cloned())
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.is_some()
    }

    /// Encrypts a stream, if the settings ask for TLS.
    pub(super) async fn handshake(&self, stream: Box<dyn Stream>, endpoint: &Endpoint) -> Result<Secured, Failure> {
        let Some(tls) = &self.0 else {
            let finding = Finding::skip(Check::Tls, "TLS is off (setting tls)");
            return Ok(Secured { stream, finding });
        };
        let stream = tls
            .handshake(stream, endpoint.host())
            .await
            .map_err(|error| refused(error, endpoint))?;
        let chain = stream.peer_certificates();
        let version = stream
            .protocol_version()
            .map_or_else(String::new, |version| format!("{version:?}"));
        let mut read = chain.iter().map(|certificate| Certificate::read(certificate));
        let finding = match read.next().flatten() {
            Some(own) => own.judge(read.flatten().collect(), today()),
            None => Finding::ok(Check::Tls, "the certificate is accepted; its times cannot be read"),
        };
        let finding = finding.fact("chain", chain.len()).fact("version", version);
        Ok(Secured {
            stream: Box::new(stream),
            finding,
        })
    }
}

fn refused(error: Error, endpoint: &Endpoint) -> Failure {
    Failure::from(error).exit_with(Exit::REFUSED).remedy(format!(
        "look at what the server presents: openssl s_client -connect {endpoint} -showcerts; the setting tls_ca_file trusts \
         an authority, tls_server_name is the name that must stand in the certificate"
    ))
}

/// The data of a server's certificate that the report shows.
struct Certificate {
    subject: String,
    names: Vec<String>,
    issuer: String,
    /// Seconds since 1970.
    not_after: i64,
}

impl Certificate {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(name).collect()
        });
        Some(Self {
            subject: certificate.subject().to_string(),
            names,
            issuer: certificate.issuer().to_string(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }

    /// Follows the issuers from this certificate upwards, and returns the one of their certificates that ends first.
    /// Roots do not count, because clients trust a root whether or not the server presents it. Certificates that have
    /// expired do not count, because clients look for a chain without them. Of several certificates of one issuer, the
    /// one that ends last counts.
    fn first_to_end_above(&self, mut presented: Vec<Self>, now: i64) -> Option<Self> {
        presented.retain(|other| other.subject != other.issuer && other.not_after >= now);
        let (mut issuer, mut first) = (self.issuer.clone(), None::<Self>);
        loop {
            let (of_issuer, others) = presented.into_iter().partition(|other| other.subject == issuer);
            let of_issuer: Vec<Self> = of_issuer;
            let Some(above) = of_issuer.into_iter().max_by_key(|above| above.not_after) else {
                return first;
            };
            presented = others;
            issuer.clone_from(&above.issuer);
            if first.as_ref().is_none_or(|first| above.not_after < first.not_after) {
                first = Some(above);
            }
        }
    }

    /// Judges an accepted certificate. `presented` are the other certificates that the server presents. `now` is in
    /// seconds since 1970.
    fn judge(&self, presented: Vec<Self>, now: i64) -> Finding {
        let above = self.first_to_end_above(presented, now);
        let above = above.filter(|above| above.not_after < self.not_after);
        let not_after = above.as_ref().map_or(self.not_after, |above| above.not_after);
        let days_until = |end: i64| (end - now).div_euclid(86_400);
        let days = days_until(not_after);
        let mut names = self
            .names
            .iter()
            .take(NAMES_TOLD)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if self.names.len() > NAMES_TOLD {
            names.push_str(&format!(" and {} more", self.names.len() - NAMES_TOLD));
        }
        let mut what = format!(
            "the certificate for {names}, issued by {}, is valid for {} days",
            self.issuer,
            days_until(self.not_after)
        );
        let remedy = match above {
            None => "renew it now: clients cannot connect once it has expired".to_owned(),
            Some(Self { subject, .. }) => {
                what.push_str(&format!(
                    "; that of {subject}, which the server presents with it, for {days} days"
                ));
                format!(
                    "renew the certificate of {subject}, and let the server present the new one: clients may not connect \
                     once the old one has expired"
                )
            }
        };
        let finding = match days < SOON {
            false => Finding::ok(Check::Tls, what),
            true => Finding::warn(Check::Tls, what, remedy),
        };
        finding
            .fact("days_left", days)
            .fact("not_after", not_after)
            .fact("names", self.names.clone())
            .fact("issuer", self.issuer.as_str())
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            _ => {
                let bytes: [u8; 16] = (*bytes).try_into().ok()?;
                Some(std::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}

fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::report::Verdict;

    #[test]
    fn a_certificate_that_ends_soon_is_warned_of() {
        let day = 86_400;
        let ending = |subject: &str, issuer: &str, end: i64| Certificate {
            subject: format!("CN={subject}"),
            names: (0..6).map(|number| format!("n{number}")).collect(),
            issuer: format!("CN={issuer}"),
            not_after: end * day,
        };
        let certificate = ending("own", "ours", 100);
        for (now, verdict, left) in [
            (0, Verdict::Ok, 100),
            (86 * day, Verdict::Ok, 14),
            (86 * day + 1, Verdict::Warn, 13),
            (100 * day - 1, Verdict::Warn, 0),
        ] {
            let finding = certificate.judge(vec![ending("ours", "root", 101)], now);
            let told = serde_json::to_value(&finding).unwrap();
            assert_eq!(finding.verdict, verdict, "{now}");
            assert_eq!(told["facts"]["days_left"], left);
            assert!(
                told["what"].as_str().unwrap().contains("n0, n1, n2, n3 and 2 more"),
                "{told}"
            );
        }
        // Certificates of authorities end earlier.
        let earlier = ending("ours", "root", 9);
        let root = ending("root", "old root", 7);
        for (presented, verdict, left, named) in [
            (vec![earlier], Verdict::Warn, 9, "CN=ours"),
            (vec![root, ending("ours", "root", 9)], Verdict::Warn, 7, "CN=root"),
            // Two certificates of the issuer: the one that ends last counts.
            (
                vec![ending("ours", "root", 9), ending("ours", "root", 50)],
                Verdict::Ok,
                50,
                "CN=ours",
            ),
            // The certificate of an authority that issued none of the others.
            (vec![ending("another", "root", 9)], Verdict::Ok, 100, ""),
            // A root.
            (vec![ending("ours", "ours", 9)], Verdict::Ok, 100, ""),
            // A certificate of the issuer that has expired already.
            (vec![ending("ours", "root", -300)], Verdict::Ok, 100, ""),
            // A circle of issuers.
            (
                vec![ending("ours", "root", 60), ending("root", "ours", 50)],
                Verdict::Ok,
                50,
                "CN=root",
            ),
        ] {
            let told = serde_json::to_value(certificate.judge(presented, 0)).unwrap();
            let what = told["what"].as_str().unwrap();
            assert_eq!(
                (&told["verdict"], &told["facts"]["days_left"]),
                (&serde_json::to_value(verdict).unwrap(), &left.into()),
                "{told}"
            );
            assert!(what.contains(" is valid for 100 days"), "{told}");
            assert_eq!(what.contains("presents with it"), left != 100, "{told}");
            assert!(what.contains(named), "{told}");
            let remedy = told["do"].as_str().unwrap_or_default();
            assert_eq!(
                verdict == Verdict::Warn,
                remedy.contains(&format!("of {named}, ")),
                "{told}"
            );
        }
    }
}
