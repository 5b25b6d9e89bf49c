//! Options as environment variables. `docs/guide/src/configuration.md` lists them.

use std::ffi::OsString;
use std::fmt;

use super::nearest::nearest;
use super::settings::{TABLE, find};
use super::source_settings::{OWN_VARIABLES, Source, SourceSettings, VARIABLES, bare_variable};
use super::url;
use super::value::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Escaped;

/// The variable that holds a URL. Other variables override it.
const URL: &str = "DFLOCKD_URL";

/// The variables that only servers read, of all releases, without the prefix.
const OF_SERVERS: [&str; 25] = [
    "ADMIN_TOKEN",
    "ADVERTISE_ADDR",
    "AUTO_RELEASE_ON_DISCONNECT",
    "DEBUG",
    "DEFAULT_LEASE_TTL_S",
    "FENCE_STATE_FILE",
    "GC_INTERVAL_S",
    "GC_LOOP_SLEEP",
    "GC_MAX_IDLE_S",
    "GC_MAX_UNUSED_TIME",
    "HOST",
    "LEASE_SWEEP_INTERVAL_S",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_PER_IP",
    "MAX_LOCKS",
    "MAX_SUBSCRIPTIONS",
    "MAX_WAITERS",
    "NODE_ID",
    "ORPHAN_TTL_S",
    "PORT",
    "READ_TIMEOUT_S",
    "SHUTDOWN_TIMEOUT_S",
    "TLS_CERT",
    "TLS_KEY",
    "WRITE_TIMEOUT_S",
];

/// The families of variables that only servers read, without the prefix.
const FAMILIES_OF_SERVERS: [&str; 3] = ["CLUSTER_", "HTTP_", "RAFT_"];

/// Reads variables. Skips empty variables, variables that only servers read, and variables of other programs.
///
/// # Errors
///
/// `InvalidInput`; the message names the variable.
pub(super) fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<SourceSettings> {
    let mut given = SourceSettings::nothing(Source::Environment);
    let mut below = None;
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLES)) else {
            continue;
        };
        let is_own = name == URL || name.starts_with(OWN_VARIABLES) || Source::Environment.find(name).is_some();
        if !is_own {
            continue;
        }
        let value = match value.into_string() {
            Ok(value) => Text::new(value),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("environment variable {name} is not acceptable: it is not UTF-8"),
                ));
            }
        };
        let value = Text::new(value.trim().to_owned());
        if value.is_empty() {
            continue;
        }
        if is_service_link(name, &value) {
            continue;
        }
        if name != URL {
            given.add_named(name, value)?;
        } else if below.is_none() {
            let read = url::read(&value).map_err(|error| of_url(&error))?;
            below = Some(read.of_variable(URL));
        } else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("environment variable {URL} is given twice: give it once"),
            ));
        }
    }
    match below {
        None => Ok(given),
        // The URL and `DFLOCKD_SERVERS` are both set: every URL names servers.
        Some(_) if given.has("servers") => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{URL} and DFLOCKD_SERVERS both say where the servers are: give one of them"),
        )),
        Some(below) => Ok(given.over(below)),
    }
}

/// An environment variable that looks like one of dflockd, but that neither clients nor servers read: see
/// [`ClientOptions::ignored_vars`](super::ClientOptions::ignored_vars).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredVariable {
    /// The name of the variable.
    pub name: String,
    /// Known variables with similar names, the most similar first. Empty if there are none.
    pub nearest: Vec<String>,
}

/// Says that the variable is ignored, and suggests similar names.
impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "environment variable {} is ignored: there is no such setting",
            Escaped(&self.name)
        )?;
        match self.nearest.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; the nearest is {one}"),
            several => write!(f, "; the nearest are {}", several.join(", ")),
        }
    }
}

/// Returns the variables that begin with `DFLOCKD_` and that neither clients nor servers read. Unknown names with the
/// client's own prefix are [errors](read) and are not included.
pub(super) fn ignored(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<IgnoredVariable> {
    let variables = variables.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let rest = name.strip_prefix(VARIABLES)?;
        let value = value.to_string_lossy();
        let is_read = name == URL
            || name.starts_with(OWN_VARIABLES)
            || Source::Environment.find(&name).is_some()
            || OF_SERVERS.contains(&rest)
            || FAMILIES_OF_SERVERS.iter().any(|family| rest.starts_with(family));
        let is_link = is_link_of_services(VARIABLES, &name, &value) || is_link_of_containers(rest, &value);
        let is_ignored = !is_read && !value.trim().is_empty() && !is_link;
        is_ignored.then(|| IgnoredVariable {
            nearest: near_variables(&name),
            name,
        })
    });
    let mut ignored: Vec<_> = variables.collect();
    ignored.sort_by(|one, other| one.name.cmp(&other.name));
    ignored
}

/// Returns the variables of clients and servers with similar names.
fn near_variables(name: &str) -> Vec<String> {
    let bare = bare_variable(name);
    if find(&bare).is_some() {
        return vec![Source::Environment.spell(&bare)];
    }
    let of_servers: Vec<String> = OF_SERVERS.iter().map(|name| name.to_ascii_lowercase()).collect();
    let known = TABLE.iter().map(|setting| setting.name());
    let known = known.chain(of_servers.iter().map(String::as_str)).chain(["url"]);
    let near = nearest(&bare, known).into_iter().map(|near| match find(near) {
        Some(_) => Source::Environment.spell(near),
        None => format!("{VARIABLES}{}", near.to_ascii_uppercase()),
    });
    near.collect()
}

/// Returns whether Kubernetes or Docker sets this variable for a service whose name begins with `dflockd-client`. No
/// setting has a name of this form.
fn is_service_link(name: &str, value: &str) -> bool {
    is_link_of_services(OWN_VARIABLES, name, value)
}

/// Returns whether Kubernetes or Docker sets this variable for a service whose variables begin with `prefix`.
fn is_link_of_services(prefix: &str, name: &str, value: &str) -> bool {
    let Some(name) = name.strip_prefix(prefix).map(|rest| format!("_{rest}")) else {
        return false;
    };
    // The address of one port: `_PORT_6388_TCP`, optionally with one of three suffixes.
    let port = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(&name);
    let number = ["_TCP", "_UDP", "_SCTP"]
        .iter()
        .find_map(|protocol| port.strip_suffix(protocol))
        .and_then(|port| port.rsplit_once("_PORT_"))
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()));
    number
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
}

/// Returns whether Docker sets this variable for a container that is linked as `dflockd` or `dflockd-…`. `rest` is the
/// name without the prefix. Variables with the client's own prefix are not checked for this, because
/// `DFLOCKD_CLIENT_NAME` is a setting.
fn is_link_of_containers(rest: &str, value: &str) -> bool {
    let rest = format!("_{rest}");
    rest.contains("_ENV_") || (rest.ends_with("_NAME") && value.starts_with('/'))
}

fn of_url(error: &Error) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("environment variable {URL}: {}", error.message()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::ClientOptions;
    use super::super::settings::{TABLE, full_name};
    use super::*;
    use crate::ErrorKind;

    fn options(variables: &[(&str, &str)]) -> Result<ClientOptions> {
        ClientOptions::from_vars(variables.iter().copied())
    }

    fn refusal(variables: &[(&str, &str)]) -> String {
        let error = options(variables).map(|read| panic!("was read as {read}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    #[test]
    fn settings_without_a_variable_have_their_defaults() {
        let read = options(&[("HOME", "/root"), ("DFLOCKD_CLIENT_LEASE_TTL", " ")]).unwrap();
        assert_eq!(read.expose_url(), ClientOptions::default().expose_url());
    }

    #[test]
    fn a_variable_overrides_the_url_and_so_does_each_form_of_the_auth_token() {
        let url = "dflockd://sesame@a:1/?keepalive=3s&reply_timeout=4s";
        let read = options(&[
            ("DFLOCKD_CLIENT_KEEPALIVE", "5s\n"),
            ("DFLOCKD_URL", url),
            ("DFLOCKD_AUTH_TOKEN_FILE", "/run/secret"),
        ]);
        let url = "dflockd://a:1/?auth_token_file=/run/secret&keepalive=5s&reply_timeout=4s";
        assert_eq!(read.unwrap().expose_url(), url);
        let read = options(&[
            ("DFLOCKD_SERVERS", "a:1+b:1, c"),
            ("DFLOCKD_AUTH_TOKEN", "se/same"),
            ("DFLOCKD_CLIENT_ORPHAN_TTL", "9s"),
        ]);
        assert_eq!(
            read.unwrap().expose_url(),
            "dflockd://se%2Fsame@a:1+b:1,c:6388/?orphan_ttl=9s"
        );
    }

    #[test]
    fn variables_of_servers_are_ignored() {
        let servers = [
            ("DFLOCKD_HOST", "0.0.0.0"),
            ("DFLOCKD_MAX_WAITERS", "0"),
            ("DFLOCKD_READ_TIMEOUT_S", "60"),
            ("DFLOCKD_TLS_CERT", "x"),
        ];
        assert_eq!(
            options(&servers).unwrap().expose_url(),
            ClientOptions::default().expose_url()
        );
    }

    #[test]
    fn variables_that_nothing_reads_are_found_with_the_nearest_names() {
        let ignored = |name: &str, value: &str| ClientOptions::ignored_vars([(name, value)]);
        for (name, nearest) in [
            ("DFLOCKD_LEASE_TTL", &["DFLOCKD_CLIENT_LEASE_TTL"][..]),
            ("DFLOCKD_SERVER", &["DFLOCKD_SERVERS"]),
            ("DFLOCKD_MAX_LOCK", &["DFLOCKD_MAX_LOCKS"]),
            ("DFLOCKD_AUTHTOKEN", &["DFLOCKD_AUTH_TOKEN"]),
            ("DFLOCKD_TLS", &["DFLOCKD_CLIENT_TLS"]),
            ("DFLOCKD_COLOUR", &[]),
            ("DFLOCKD_VERSION", &[]),
            ("DFLOCKD_NAME", &["DFLOCKD_CLIENT_NAME"]),
            ("DFLOCKD_URI", &["DFLOCKD_URL"]),
        ] {
            let found = ignored(name, "3");
            assert_eq!((found[0].name.as_str(), found.len()), (name, 1));
            assert_eq!(found[0].nearest, nearest, "{name}");
        }
        assert_eq!(
            ignored("DFLOCKD_LEASE_TTL", "3")[0].to_string(),
            "environment variable DFLOCKD_LEASE_TTL is ignored: there is no such setting; the nearest is \
             DFLOCKD_CLIENT_LEASE_TTL"
        );
        for (name, value) in [
            ("DFLOCKD_URL", "dflockd://a"),
            ("DFLOCKD_SERVERS", "a"),
            ("DFLOCKD_AUTH_TOKEN_FILE", "/x"),
            ("DFLOCKD_CLIENT_LEASE_TTL", "3s"),
            // An error of `read`.
            ("DFLOCKD_CLIENT_LEASE", "3s"),
            ("DFLOCKD_HTTP_PORT", "80"),
            ("DFLOCKD_GC_INTERVAL_S", "5"),
            ("DFLOCKD_LEASE_TTL", " "),
            ("DFLOCKD_SERVICE_HOST", "10.0.0.1"),
            ("DFLOCKD_PRIMARY_PORT_6388_TCP_ADDR", "10.0.0.1"),
            ("DFLOCKD_PRIMARY_PORT", "tcp://10.0.0.1:6388"),
            ("DFLOCKD_NAME", "/service/dflockd"),
            ("DFLOCKD_PRIMARY_NAME", "/service/dflockd-primary"),
            ("DFLOCKD_ENV_TLS", "1"),
            ("DFLOCKD_PRIMARY_ENV_PATH", "/bin"),
            ("OTHER", "x"),
        ] {
            assert_eq!(ignored(name, value), [], "{name}");
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
        let address = "tcp://10.0.0.11:6388";
        let links = [
            ("SERVICE_HOST", "10.0.0.11"),
            ("SERVICE_PORT", "6388"),
            ("SERVICE_PORT_LOCKS", "6388"),
            ("PORT", address),
            ("PORT_6388_TCP", address),
            ("PORT_6388_TCP_PROTO", "tcp"),
            ("PORT_6388_TCP_PORT", "6388"),
            ("PORT_6388_TCP_ADDR", "10.0.0.11"),
            ("PORT_53_UDP", "udp://10.0.0.11:53"),
        ];
        for service in ["DFLOCKD_", "DFLOCKD_CLIENT_", "DFLOCKD_CLIENT_CANARY_"] {
            let set = links.map(|(name, value)| (format!("{service}{name}"), value));
            let read = ClientOptions::from_vars(set).unwrap();
            assert_eq!(read.expose_url(), ClientOptions::default().expose_url(), "{service}");
        }
        for setting in TABLE {
            let variable = Source::Environment.spell(setting.name());
            assert!(!is_service_link(&variable, address), "{variable}");
        }
        for (typo, value) in [
            ("PORT", "6388"),
            ("SERVICE", "a:1"),
            ("PORT_TCP", "6388"),
            ("HOST", "a"),
        ] {
            let name = format!("DFLOCKD_CLIENT_{typo}");
            assert!(
                refusal(&[(&name, value)]).contains("there is no such setting"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_variable_that_is_wrong_is_named() {
        for (variables, said) in [
            (
                &[("DFLOCKD_CLIENT_LEASE_TTL", "10")][..],
                "environment variable DFLOCKD_CLIENT_LEASE_TTL \"10\" is not acceptable: write a duration",
            ),
            (
                &[("DFLOCKD_CLIENT_LEASE", "10s")],
                "environment variable \"DFLOCKD_CLIENT_LEASE\" is not acceptable: there is no such setting; the nearest is DFLOCKD_CLIENT_LEASE_TTL",
            ),
            (
                &[("DFLOCKD_SERVERS", "a:1,b:x")],
                "environment variable DFLOCKD_SERVERS: server address \"b:x\"",
            ),
            (
                &[("DFLOCKD_SERVERS", "dflockd://sesame@a:1")],
                "DFLOCKD_SERVERS: a list of servers with an @",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://a:1?x=1")],
                "environment variable DFLOCKD_URL: URL parameter \"x\"",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://a:1?keepalive=1")],
                "environment variable DFLOCKD_URL: URL parameter keepalive \"1\"",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://a:x")],
                "environment variable DFLOCKD_URL: servers of the URL: server address \"a:x\"",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://a:1?keepalive=1s&keepalive=1s")],
                "environment variable DFLOCKD_URL: URL parameter keepalive is given twice",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://ses%0Aame@a:1")],
                "environment variable DFLOCKD_URL: the auth token of the URL is not acceptable",
            ),
            (
                &[("DFLOCKD_AUTH_TOKEN", "ses\name")],
                "environment variable DFLOCKD_AUTH_TOKEN is not acceptable: write the auth token, of 1 to 65536 bytes",
            ),
            (
                &[("DFLOCKD_CLIENT_TLS_CA_FILE", "x")],
                "environment variable DFLOCKD_CLIENT_TLS_CA_FILE is given, but TLS is not asked for: give environment variable \
                 DFLOCKD_CLIENT_TLS as true, too",
            ),
            (
                &[
                    ("DFLOCKD_URL", "dflockd://a:1?tls_ca_file=x"),
                    ("DFLOCKD_CLIENT_TLS", "no"),
                ],
                "environment variable DFLOCKD_URL: URL parameter tls_ca_file is given, but TLS is not asked for: give environment \
                 variable DFLOCKD_CLIENT_TLS as true",
            ),
            (
                &[("DFLOCKD_CLIENT_TLS", "1"), ("DFLOCKD_CLIENT_TLS_CLIENT_KEY_FILE", "x")],
                "environment variable DFLOCKD_CLIENT_TLS_CLIENT_CERTIFICATE_FILE and environment variable \
                 DFLOCKD_CLIENT_TLS_CLIENT_KEY_FILE belong together",
            ),
            (
                &[("DFLOCKD_CLIENT_TLS", "1"), ("DFLOCKD_CLIENT_TLS_SYSTEM_ROOTS", "no")],
                "TLS trusts no authority: give environment variable DFLOCKD_CLIENT_TLS_CA_FILE, or environment variable \
                 DFLOCKD_CLIENT_TLS_SYSTEM_ROOTS or environment variable DFLOCKD_CLIENT_TLS_PLATFORM_VERIFIER as true",
            ),
            (
                &[("DFLOCKD_URL", "dflockd://a:1"), ("DFLOCKD_SERVERS", "a:1")],
                "DFLOCKD_URL and DFLOCKD_SERVERS both",
            ),
            (
                &[("DFLOCKD_AUTH_TOKEN", "sesame"), ("DFLOCKD_AUTH_TOKEN_FILE", "x")],
                "DFLOCKD_AUTH_TOKEN and DFLOCKD_AUTH_TOKEN_FILE are both given",
            ),
            (
                &[("DFLOCKD_CLIENT_TLS", "1"), ("DFLOCKD_CLIENT_TLS", "1")],
                "DFLOCKD_CLIENT_TLS is given twice",
            ),
        ] {
            let error = refusal(variables);
            assert!(
                error.contains(said) && !error.contains("sesame"),
                "{variables:?}: {error}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_unicode_is_refused_if_the_variable_is_used() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(vec![0xff]);
        assert!(ClientOptions::from_vars([("OTHER", bytes()), ("DFLOCKD_HOST", bytes())]).is_ok());
        let error = ClientOptions::from_vars([("DFLOCKD_AUTH_TOKEN", bytes())]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("DFLOCKD_AUTH_TOKEN is not acceptable: it is not UTF-8"),
            "{error}"
        );
    }

    /// Checks that the URLs in the documentation can be read.
    #[cfg(feature = "tls")]
    #[test]
    fn the_urls_of_the_documentation_are_read() {
        let document = include_str!("../../docs/guide/src/configuration.md");
        let urls: Vec<&str> = document.lines().filter(|line| line.starts_with("dflockd")).collect();
        assert!(urls.len() >= 4, "{urls:?}");
        for url in urls {
            ClientOptions::from_url(url).unwrap();
        }
    }

    /// Checks that the table in the documentation has each setting, its variable, its default and its form.
    #[test]
    fn the_documentation_lists_the_settings() {
        let document = include_str!("../../docs/guide/src/configuration.md");
        let rows: Vec<Vec<&str>> = document
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let defaults = ClientOptions::default();
        for setting in TABLE {
            let row = rows.iter().find(|row| row[0] == format!("`{}`", setting.name()));
            let row =
                row.unwrap_or_else(|| panic!("docs/guide/src/configuration.md has no row for {}", setting.name()));
            let variable = Source::Environment.spell(&full_name(*setting, None));
            assert_eq!(row[1], format!("`{variable}`"));
            match &setting.write(&defaults)[..] {
                [(None, text)] => assert_eq!(row[2], format!("`{}`", text.as_str()), "{}", setting.name()),
                other => assert!(other.is_empty() && !row[2].is_empty(), "{}", setting.name()),
            }
            assert_eq!(row.len(), 4, "{}", setting.name());
        }
        assert_eq!(rows.len(), TABLE.len(), "{rows:?}");
    }
}
