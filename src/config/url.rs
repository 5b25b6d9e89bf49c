//! Options as a URL: `dflockd://token@a:6388+b:6388,c:6388/?connect_timeout=3s`. Pure. The grammar is in `docs/guide/src/configuration.md`.

use super::ClientOptions;
use super::settings::{full_name, written};
use super::source_settings::{Source, SourceSettings};
use super::value::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Shortened;
use crate::percent;
use crate::shards::Shard;

/// The schemes, without and with TLS.
const SCHEMES: [(&str, bool); 2] = [("dflockd", false), ("dflockds", true)];

/// Stands for a hidden secret. It is not valid in a URL, so a shown URL cannot be used as a complete one.
const HIDDEN: &str = "…";

/// The characters that stay unencoded in the value of a parameter, for readability.
const PLAIN_IN_VALUES: &str = "/:,*";

/// Whether a URL is written with its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    Exposed,
    Hidden,
}

/// Splits a URL into settings. The caller parses their texts.
///
/// # Errors
///
/// `InvalidInput`. The message names the invalid part, without any text that may be a secret.
pub(super) fn read(url: &str) -> Result<SourceSettings> {
    let url = url.trim();
    if url.contains(HIDDEN) {
        return refuse(
            "it has … in place of a secret, as a displayed URL does: write the auth token or stable_ref itself",
        );
    }
    if !url.chars().all(|c| c.is_ascii_graphic()) {
        return refuse("it has a character that must be percent-encoded: a blank is %20");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse("it has no scheme: write dflockd://host:6388");
    };
    let mut given = SourceSettings::nothing(Source::Url);
    match SCHEMES.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)) {
        Some((_, true)) => given.add("tls", Text::new("true".to_owned()))?,
        Some((_, false)) => {}
        None if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            let remedy = "write dflockd:// or, with TLS, dflockds://";
            return Err(Error::invalid("scheme of the URL", Shortened(scheme), remedy));
        }
        None => return refuse("it does not begin with a scheme: write dflockd:// or, with TLS, dflockds://"),
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    read_authority(authority, &mut given)?;
    if tail.contains('@') {
        return refuse(
            "there is an @ after the first /, ? or #: in the auth token write /, ? and # as %2F, %3F and %23; in a parameter write @ as %40",
        );
    }
    if tail.contains('#') {
        return refuse("it has a #, which is written %23");
    }
    let tail = tail.strip_prefix('/').unwrap_or(tail);
    match tail.strip_prefix('?') {
        Some(query) => read_query(query, &mut given)?,
        None if tail.is_empty() => {}
        None => {
            let remedy = "these URLs have none; parameters begin with a ?";
            return Err(Error::invalid("path of the URL", Shortened(tail), remedy));
        }
    }
    Ok(given)
}

/// Reads the secret and the servers.
fn read_authority(authority: &str, given: &mut SourceSettings) -> Result<()> {
    let servers = match authority.split_once('@') {
        None => authority,
        Some((_, servers)) if servers.contains('@') => {
            return refuse("it has more than one @: in the auth token it is written %40");
        }
        Some((secret, _)) if secret.contains(':') => {
            return refuse(
                "there are a user and a password before the @: write only the auth token, and a : in it as %3A",
            );
        }
        Some(("", _)) => {
            return refuse("there is nothing before the @: write the auth token there, or leave the @ out");
        }
        Some((secret, servers)) => {
            let secret = percent::decode(secret);
            given.add(
                "auth_token",
                secret.or_else(|problem| refuse(&format!("in the auth token, {problem}")))?,
            )?;
            servers
        }
    };
    if servers.is_empty() {
        return refuse("it names no server: write dflockd://host:6388");
    }
    given.add("servers", Text::new(servers.to_owned()))
}

/// Reads the parameters.
fn read_query(query: &str, given: &mut SourceSettings) -> Result<()> {
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        let Some((name, value)) = parameter.split_once('=') else {
            // The text may be the end of a secret, so the message does not contain it.
            return refuse(
                "a parameter has no value: write name=value, & between two parameters, and %26 for an & in a value",
            );
        };
        match name {
            "auth_token" => {
                return refuse("in a URL the auth token is before the servers: write dflockd://auth-token@host:6388");
            }
            "servers" => return refuse("its servers come after dflockd://, and not in a parameter"),
            _ => {}
        }
        let value = percent::decode(value)
            .map_err(|problem| Error::invalid("URL parameter", Shortened(name), &format!("in its value, {problem}")))?;
        given.add_named(name, value)?;
    }
    Ok(())
}

fn refuse<T>(problem: &str) -> Result<T> {
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("the URL is not acceptable: {problem}"),
    ))
}

/// Writes options as a URL. If secrets are exposed, [`read`] returns the same options.
pub(super) fn write(options: &ClientOptions, secrets: Secrets) -> Text {
    let shown = |text: &Text, plain| match secrets {
        Secrets::Exposed => percent::encode(text, plain),
        Secrets::Hidden => Text::new(HIDDEN.to_owned()),
    };
    let mut secret = None;
    let mut parameters = Vec::new();
    for (setting, shard, text) in written(options) {
        match setting.name() {
            "servers" => {}
            "auth_token" => secret = Some(shown(&text, "")),
            _ => {
                let value = match setting.is_secret() {
                    true => shown(&text, PLAIN_IN_VALUES),
                    false => percent::encode(&text, PLAIN_IN_VALUES),
                };
                parameters.push((full_name(setting, shard), value));
            }
        }
    }
    let servers = Shard::write_all(&options.shards);
    let mut parts: Vec<&str> = vec![SCHEMES[0].0, "://"];
    if let Some(secret) = &secret {
        parts.extend([secret.as_str(), "@"]);
    }
    parts.push(&servers);
    for (index, (name, value)) in parameters.iter().enumerate() {
        parts.extend([if index == 0 { "/?" } else { "&" }, name, "=", value.as_str()]);
    }
    // Allocates once, so that no copy of the secret is left behind.
    Text::new(parts.concat())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn options(url: &str) -> ClientOptions {
        ClientOptions::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn refusal(url: &str) -> String {
        match ClientOptions::from_url(url) {
            Ok(options) => panic!("{url} was read as {options}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                error.to_string()
            }
        }
    }

    #[test]
    fn every_part_is_read() {
        let read = options(
            "dflockd://se%40s%3Ame%2F+=@a:1+b:2,[::1]:3,unix:%2Frun%2Fd.sock;c/?tls=1&tls_ca_file=/etc/ca%20bundle.pem\
             &orphan_ttl=30s&takeover_delay=1m30s&renew_ratio=0.25&reconnect=10ms..2s&on_unavailable=fail_fast&fencing=required\
             &allowed_hosts=*.x,10.0.0.0/8&stable_ref=who%3F&lease_ttl=1.5s&max_in_flight=7",
        );
        let url = "dflockd://se%40s%3Ame%2F%2B%3D@a:1+b:2,[::1]:3,unix:%2Frun%2Fd.sock;c:6388/?orphan_ttl=30s&allowed_hosts=*.x,10.0.0.0/8";
        assert!(read.expose_url().starts_with(url), "{}", read.expose_url());
        let shards = &read.shards;
        assert_eq!(shards.len(), 3);
        assert_eq!(shards[0].terms().orphan_ttl, Some(std::time::Duration::from_secs(30)));
        assert_eq!(shards[1].terms().orphan_ttl, None);
        assert_eq!(
            shards[2].terms().takeover_delay,
            Some(std::time::Duration::from_secs(90))
        );
        assert_eq!(read.max_in_flight, 7);
        assert_eq!(options(&read.expose_url()).expose_url(), read.expose_url());
    }

    #[test]
    fn a_setting_of_one_shard_is_written_with_its_number() {
        for url in [
            "dflockd://a:1+b:1,c:1,d:1+e:1/?orphan_ttl.0=30s",
            "dflockd://a:1+b:1,c:1,d:1+e:1/?orphan_ttl.0=30s&orphan_ttl.2=40s",
            "dflockd://a:1+b:1,c:1,d:1+e:1/?stable_ref.0=me&stable_ref.2=you",
            "dflockd://a:1+b:1,c:1,d:1+e:1/?orphan_ttl=30s",
        ] {
            assert_eq!(options(url).expose_url(), url);
        }
    }

    #[test]
    fn the_scheme_may_ask_for_tls() {
        #[cfg(feature = "tls")]
        assert_eq!(options("DFLOCKDS://a").expose_url(), "dflockd://a:6388/?tls=true");
        assert!(refusal("dflockds://a/?tls=true").contains("tls is given twice"));
        for more in ["", "&tls_ca_file=/ca.pem"] {
            let url = format!("dflockd://a:6388/?tls=true&tls_platform_verifier=true{more}");
            #[cfg(feature = "tls")]
            assert_eq!(options(&url).expose_url(), url);
            #[cfg(not(feature = "tls"))]
            assert!(refusal(&url).contains("feature tls"));
        }
    }

    #[test]
    fn the_part_that_is_wrong_is_named_with_its_remedy() {
        for (url, said) in [
            ("a:6388", "no scheme: write dflockd://host:6388"),
            (
                "redis://a:6388",
                "scheme of the URL \"redis\" is not acceptable: write dflockd://",
            ),
            ("dflockd://", "names no server"),
            ("dflockd:///", "names no server"),
            ("dflockd://a:1/0", "path of the URL \"0\""),
            (
                "dflockd://a:1/?connect_timeout=3",
                "URL parameter connect_timeout \"3\" is not acceptable: write a duration",
            ),
            (
                "dflockd://a:1?max_waiters=-1",
                "URL parameter max_waiters \"-1\" is not acceptable: write a whole number",
            ),
            ("dflockd://a:1?tls", "a parameter has no value: write name=value"),
            ("dflockd://a:1?tls=maybe", "true or false"),
            ("dflockd://a:1?tls=", "true or false"),
            (
                "dflockd://a:1?conect_timeout=3s",
                "URL parameter \"conect_timeout\" is not acceptable: there is no such setting; the nearest is connect_timeout",
            ),
            (
                "dflockd://a:1?keepalive=3s&keepalive=3s",
                "URL parameter keepalive is given twice",
            ),
            (
                "dflockd://a:1+b:1?orphan_ttl=3s&orphan_ttl.0=3s",
                "orphan_ttl and orphan_ttl.0 are both given",
            ),
            ("dflockd://a:1+b:1?orphan_ttl.1=3s", "shard 1 is another kind of shard"),
            (
                "dflockd://a:1+b:1?orphan_ttl.01=3s",
                "\"orphan_ttl.01\" is not acceptable: there is no such setting",
            ),
            ("dflockd://a:1?orphan_ttl=3s", "the servers have no such shard"),
            ("dflockd://a:1?keepalive.0=3s", "there is no such setting"),
            ("dflockd://a:1?a=1&", "URL parameter"),
            (
                "dflockd://a:1,b:x",
                "servers of the URL: server address \"b:x\" is not acceptable: the port",
            ),
            (
                "dflockd://a:1?keepalive=%zz",
                "URL parameter \"keepalive\" is not acceptable: in its value, a % must be followed by two hexadecimal",
            ),
            ("dflockd://a:1#x", "written %23"),
            ("dflockd://a :1", "a blank is %20"),
            (
                "dflockd://a:1?sharding_strategy=mine",
                "write stable_hash_shard or rendezvous_hash_shard; a strategy of the program's own",
            ),
            ("dflockd://a:1?reconnect=5s..1s", "the first and the longest pause"),
            (
                "dflockd://a:1?auth_token_env=X&auth_token_file=Y",
                "auth_token_env and auth_token_file are both given",
            ),
            (
                "dflockd://a:1?tls_ca_file=x",
                "tls_ca_file is given, but TLS is not asked for",
            ),
            ("dflockd://a:1?tls=1&tls_client_key_file=x", "belong together"),
            ("dflockd://a:1?tls=1&tls_system_roots=no", "trusts no authority"),
            ("dflockd://a:1?tls_platform_verifier=1", "TLS is not asked for"),
            (
                "dflockd://a:1?tls=1&tls_platform_verifier=1&tls_system_roots=1",
                "tls_system_roots and URL parameter tls_platform_verifier are both given",
            ),
        ] {
            let error = refusal(url);
            assert!(error.contains(said), "{url}: {error}");
        }
    }

    #[test]
    fn no_secret_is_shown_in_an_error() {
        for url in [
            "dflockd://ses%@a:1",
            "dflockd://ses@ame@a:1",
            "dflockd://me:sesame@a:1",
            "dflockd://ses/ame@a:1",
            "dflockd://ses?ame@a:1",
            "dflockd://ses#ame@a:1",
            "dflockd://sesame@a:x",
            "dflockd://sesame@a:1?x=1",
            "dflockd://sesame@a:1?auth_token=sesame",
            "dflockd://sesame@a:1?auth_token_file=x",
            "dflockd://a:1?previous_servers=sesame%40b:1&previous_sharding_strategy=stable_hash_shard",
            "dflockd://a:1+b:1?stable_ref=sesame%20",
            "dflockd://a:1+b:1?stable_ref=x&sesame",
            "dflockd://se%xs%40a:1",
            "dflockd://a:1?auth_token=sesame",
            "sesame@a:1",
            "ses@ame://a:1",
            "dflockd://ses ame@a:1",
        ] {
            let error = refusal(url);
            assert!(!error.contains("ses"), "{url}: {error}");
        }
        assert!(refusal("dflockd://…@a:1").contains("in place of a secret"));
    }

    #[test]
    fn options_show_no_secret() {
        let read = options("dflockd://sesame@a:1+b:1/?stable_ref=sesame2");
        for shown in [read.to_string(), format!("{read:?}"), format!("{read:#?}")] {
            assert!(shown.contains('…') && !shown.contains("ses"), "{shown}");
        }
        assert_eq!(read.to_string(), "dflockd://…@a:1+b:1/?stable_ref=…");
        assert!(read.expose_url().contains("sesame@") && read.expose_url().contains("sesame2"));
    }

    /// A parameter and a valid text, for a client with a cluster as shard 0 and standbys as shard 1.
    fn parameter() -> impl Strategy<Value = (String, String)> {
        let duration = (0_u64..100_000, 0_u32..1_000_000_000).prop_map(|(s, n)| format!("{s}s{n}ns"));
        let name = "[ -~äж]{1,12}";
        prop_oneof![
            (
                prop::sample::select(vec![
                    "orphan_ttl",
                    "takeover_delay",
                    "auth_retry_interval",
                    "connect_timeout",
                    "request_timeout",
                    "acquire_timeout",
                    "lease_ttl",
                    "loss_margin",
                    "keepalive",
                    "reply_timeout",
                    "server_read_timeout",
                    "idle_connection_timeout",
                ]),
                duration
            ),
            (
                prop::sample::select(vec![
                    "max_in_flight",
                    "pipelined_connections",
                    "max_waiters",
                    "exclusive_connections",
                    "exclusive_connections_per_key",
                    "max_redirects",
                ]),
                (0_u32..).prop_map(|n| n.to_string())
            ),
            (
                prop::sample::select(vec!["auth_token_file"]),
                name.prop_map(|name| name)
            ),
            (
                Just("renew_ratio"),
                (0_u32..10_000).prop_map(|n| (f64::from(n) / 1e4).to_string())
            ),
            (Just("survives_disconnect"), any::<bool>().prop_map(|b| b.to_string())),
            (
                Just("on_unavailable"),
                prop::sample::select(vec!["wait", "fail_fast"]).prop_map(str::to_owned)
            ),
            (
                Just("fencing"),
                prop::sample::select(vec!["required", "if_known", "off"]).prop_map(str::to_owned)
            ),
            (
                Just("reconnect"),
                (1_u64..1000, 1000_u64..).prop_map(|(a, b)| format!("{a}ms..{b}ms"))
            ),
            (
                Just("allowed_hosts"),
                vec("[a-z]{1,5}", 1..3).prop_map(|hosts| hosts.join(","))
            ),
            (Just("stable_ref"), "[!-~]{1,64}".prop_map(|name| name)),
        ]
        .prop_map(|(name, text)| (name.to_owned(), text))
    }

    proptest! {
        #[test]
        fn options_survive_writing_and_reading(
            secret in prop::option::of("[^\r\n\0]{1,20}"),
            parameters in vec(parameter(), 0..8),
            path in "[ -~ö]{1,20}",
        ) {
            let mut url = "dflockd://".to_owned();
            let has_file = parameters.iter().any(|(name, _)| name == "auth_token_file");
            if let Some(secret) = secret.filter(|_| !has_file) {
                url += &format!("{}@", *percent::encode(&secret, ""));
            }
            url += &format!("a:1+[::1],unix:%2F{};b/", *percent::encode(&path, ""));
            let mut seen = std::collections::HashSet::new();
            let once = parameters.iter().filter(|(name, _)| seen.insert(name.clone()));
            for (index, (name, text)) in once.enumerate() {
                url += if index == 0 { "?" } else { "&" };
                url += &format!("{name}={}", *percent::encode(text, ""));
            }
            let read = options(&url);
            let again = options(&read.expose_url());
            prop_assert_eq!(again.expose_url(), read.expose_url());
            for setting in super::super::settings::TABLE {
                prop_assert_eq!(setting.write(&again), setting.write(&read));
            }
            let json = serde_json::to_string(&read).unwrap();
            let again: ClientOptions = serde_json::from_str(&json).unwrap();
            for setting in super::super::settings::TABLE.iter().filter(|setting| !setting.is_secret()) {
                prop_assert_eq!(setting.write(&again), setting.write(&read), "{}", json);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(url in "(dflockds?://)?.{0,60}|dflockd://[a-z@:,;+/?&=%.0-9]{0,60}") {
            if let Ok(options) = ClientOptions::from_url(&url) {
                ClientOptions::from_url(&options.expose_url()).unwrap();
            }
        }
    }
}
