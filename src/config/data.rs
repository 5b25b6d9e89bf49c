//! Options as data: a map of settings, or a URL.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::settings::written;
use super::source_settings::{Source, SourceSettings};
use super::value::Text;
use super::{ClientOptions, LayeredOptions};
use crate::shards::{Shard, ValueKind};

/// Deserializes a map of the settings that `docs/guide/src/configuration.md` lists, or a text with a
/// [URL](ClientOptions).
///
/// `servers` and `previous_servers` are texts as in URLs, or lists of [shards](Shard). Other values are texts as in
/// URLs. Numbers, booleans and lists of hosts may also have the data format's own types. Missing settings have their
/// defaults. The format must be self-describing, such as JSON, TOML or YAML.
impl<'de> Deserialize<'de> for ClientOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OptionsReader)
    }
}

/// Serializes a map of the settings that differ from the defaults. The map does not contain the secrets, which are
/// `auth_token` and the `stable_ref` of shards. [`expose_url`](ClientOptions::expose_url) includes them.
impl Serialize for ClientOptions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (setting, _, text) in written(self) {
            if setting.name() == "servers" {
                map.serialize_entry("servers", &self.shards)?;
            } else if setting.name() == "previous_servers" {
                map.serialize_entry("previous_servers", &self.previous_shards)?;
            } else if !setting.is_of_shards() && !setting.is_secret() {
                map.serialize_entry(setting.name(), &Scalar::of(&text, setting.kind()))?;
            }
        }
        map.end()
    }
}

/// A value in serialized data.
#[derive(Serialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Truth(bool),
    Whole(u64),
    Number(f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// Returns a number or boolean if the setting has this type and the value can be represented. Otherwise returns a
    /// text.
    fn of(text: &'a str, kind: ValueKind) -> Self {
        let value = match kind {
            ValueKind::Truth => text.parse().ok().map(Self::Truth),
            ValueKind::Whole => text.parse().ok().map(Self::Whole),
            ValueKind::Number => text
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .map(Self::Number),
            ValueKind::Text | ValueKind::Texts => None,
        };
        value.unwrap_or(Self::Text(text))
    }
}

struct OptionsReader;

impl<'de> Visitor<'de> for OptionsReader {
    type Value = ClientOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of client settings, or a URL")
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<ClientOptions, E> {
        ClientOptions::from_url(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClientOptions, A::Error> {
        let Mapped {
            given,
            shards,
            previous,
        } = read_map(&mut map)?;
        let mut start = ClientOptions::default();
        if let Some(shards) = shards {
            start.shards = shards;
        }
        start.previous_shards = previous;
        given.into_options(start).map_err(A::Error::custom)
    }
}

/// The contents of a map. The shards are separate, because the map can contain settings of the shards in addition.
struct Mapped {
    given: SourceSettings,
    shards: Option<Vec<Shard>>,
    previous: Option<Vec<Shard>>,
}

fn read_map<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Mapped, A::Error> {
    let mut given = SourceSettings::nothing(Source::Data);
    let (mut shards, mut previous) = (None, None);
    while let Some(name) = map.next_key::<String>()? {
        if name == "servers" {
            if shards.is_some() {
                return Err(A::Error::duplicate_field("servers"));
            }
            shards = Some(map.next_value::<Servers>()?.0);
        } else if name == "previous_servers" {
            if previous.is_some() {
                return Err(A::Error::duplicate_field("previous_servers"));
            }
            previous = Some(map.next_value::<Option<Servers>>()?.map(|servers| servers.0));
        } else {
            given.add_datum(&name, map.next_value()?).map_err(A::Error::custom)?;
        }
    }
    let previous = previous.flatten();
    Ok(Mapped {
        given,
        shards,
        previous,
    })
}

/// Deserializes the same forms as [`ClientOptions`], but does not parse the values yet, because other sources may
/// override them.
impl<'de> Deserialize<'de> for LayeredOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LayerReader)
    }
}

struct LayerReader;

impl<'de> Visitor<'de> for LayerReader {
    type Value = LayeredOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OptionsReader.expecting(f)
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<LayeredOptions, E> {
        LayeredOptions::from_url(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LayeredOptions, A::Error> {
        let Mapped {
            mut given,
            shards,
            previous,
        } = read_map(&mut map)?;
        if let Some(shards) = shards {
            let shards = ClientOptions {
                shards,
                ..ClientOptions::default()
            };
            given.add_shards(&shards).map_err(A::Error::custom)?;
        }
        if let Some(previous) = previous {
            let text = Shard::write_all(&previous);
            // The text form of `previous_servers` has no settings of shards.
            if Shard::read_all(&text).map_err(A::Error::custom)? != previous {
                return Err(A::Error::custom(
                    "previous_servers has settings of shards, which are not possible here: write a text such as \"a:6388,b:6388\", or a list of such texts",
                ));
            }
            given
                .add("previous_servers", Text::new(text))
                .map_err(A::Error::custom)?;
        }
        Ok(LayeredOptions::new(given))
    }
}

/// Shards, as a text or a list.
struct Servers(Vec<Shard>);

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ServersReader)
    }
}

struct ServersReader;

impl<'de> Visitor<'de> for ServersReader {
    type Value = Servers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("servers: a text such as \"a:6388,b:6388\", or a list of shards")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Servers, E> {
        Shard::read_all(text).map(Servers).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Servers, A::Error> {
        let mut shards = Vec::new();
        while let Some(shard) = seq.next_element()? {
            shards.push(shard);
        }
        Ok(Servers(shards))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::settings::{TABLE, find};
    use super::super::value::Text;
    use super::*;
    use crate::human::DURATION_FORM;

    fn read(json: &str) -> Result<ClientOptions, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_map_and_a_url_give_the_same_options() {
        let url = "dflockd://sesame@a:1+b:1,c:1;d:1/?orphan_ttl=30s&takeover_delay=40s&connect_timeout=3s&renew_ratio=0.25\
                   &survives_disconnect=true&max_waiters=7";
        for json in [
            r#"{"servers": [{"cluster": ["a:1", "b:1"], "orphan_ttl": "30s"}, {"standby": ["c:1", "d:1"], "takeover_delay": "40s"}],
                "auth_token": "sesame", "connect_timeout": "3s", "renew_ratio": 0.25, "survives_disconnect": true, "max_waiters": 7}"#,
            r#"{"orphan_ttl": "30s", "takeover_delay": "40s", "servers": "a:1+b:1,c:1;d:1", "auth_token": "sesame",
                "connect_timeout": "3000ms", "renew_ratio": "0.25", "survives_disconnect": "yes", "max_waiters": "7", "lease_ttl": null}"#,
        ] {
            assert_eq!(read(json).map(|options| options.expose_url()).as_deref(), Ok(url));
        }
        let as_text = serde_json::to_string(url).unwrap();
        assert_eq!(read(&as_text).map(|options| options.expose_url()).as_deref(), Ok(url));
        assert_eq!(read("{}").unwrap().expose_url(), ClientOptions::default().expose_url());
        let hosts = read(r#"{"servers": ["a:1+"], "allowed_hosts": ["*.x", "10.0.0.0/8"]}"#).unwrap();
        assert_eq!(hosts.expose_url(), "dflockd://a:1+/?allowed_hosts=*.x,10.0.0.0/8");
    }

    #[test]
    fn serialized_options_omit_secrets_and_are_read_back_unchanged() {
        let options =
            ClientOptions::from_url("dflockd://sesame@a:1+b:1/?stable_ref=sesame&orphan_ttl=30s&max_waiters=7")
                .unwrap();
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(
            json,
            r#"{"servers":[{"cluster":["a:1","b:1"],"orphan_ttl":"30s"}],"max_waiters":7}"#
        );
        let again = read(&json).unwrap();
        assert_eq!(again.expose_url(), "dflockd://a:1+b:1/?orphan_ttl=30s&max_waiters=7");
    }

    #[test]
    fn errors_name_the_invalid_setting() {
        for (json, said) in [
            (
                r#"{"lease_ttl": 10}"#,
                "setting lease_ttl is not acceptable: it is a number, and should be a text: write a duration",
            ),
            (
                r#"{"lease_ttl": 0}"#,
                "setting lease_ttl is not acceptable: it is a number",
            ),
            (
                r#"{"auth_token": 987654}"#,
                "setting auth_token is not acceptable: it is a number, and should be a text: write the auth token",
            ),
            (
                r#"{"auth_token": ["a", "b"]}"#,
                "setting auth_token is not acceptable: it is a list of texts, and should be a text",
            ),
            (
                r#"{"name": 7}"#,
                "setting name is not acceptable: it is a number, and should be a text",
            ),
            (
                r#"{"tls": 1}"#,
                "setting tls is not acceptable: it is a number, and should be true or false",
            ),
            (
                r#"{"max_waiters": 7.0}"#,
                "setting max_waiters is not acceptable: it is a number with a fraction, and should be a whole number: write",
            ),
            (
                r#"{"max_waiters": true}"#,
                "it is true or false, and should be a whole number",
            ),
            (
                r#"{"max_waiters": -7}"#,
                "setting max_waiters \"-7\" is not acceptable: write a whole number",
            ),
            (
                r#"{"allowed_hosts": ["a", 987654]}"#,
                "setting allowed_hosts is not acceptable: it is a list with values that are not texts, and should be a list of texts",
            ),
            (
                r#"{"connect_timeout": {"secs": 3}}"#,
                "it is a map, and should be a text",
            ),
            (
                r#"{"servers": ["a:1", {"cluster": ["b:1"], "orphan_ttl": "30s"}, "c:1+"], "orphan_ttl": "40s"}"#,
                "setting orphan_ttl \"40s\" is not acceptable: shard 1 among the servers has orphan_ttl of its own: give one of them",
            ),
            (
                r#"{"servers": [{"cluster": ["b:1"], "allowed_hosts": ["*.x"]}], "allowed_hosts": "*.y"}"#,
                "shard 0 among the servers has allowed_hosts of its own",
            ),
            (
                r#"{"tls_ca_file": "x"}"#,
                "setting tls_ca_file is given, but TLS is not asked for: give setting tls as true",
            ),
            (
                r#"{"lease": "10s"}"#,
                "setting \"lease\" is not acceptable: there is no such setting; the nearest is lease_ttl",
            ),
            (r#"{"lease": null}"#, "there is no such setting"),
            (r#"{"tls": true, "tls": true}"#, "setting tls is given twice"),
            (r#"{"servers": "a:1", "servers": "a:1"}"#, "duplicate field `servers`"),
            (r#"{"servers": ["a:1", "b:x"]}"#, "\"b:x\""),
            (r#"{"servers": 7}"#, "a list of shards"),
            (
                r#"{"auth_token": "a", "auth_token_env": "b"}"#,
                "auth_token and auth_token_env are both given",
            ),
            (r#""redis://a:1""#, "scheme of the URL \"redis\""),
            ("7", "a map of client settings, or a URL"),
        ] {
            let error = read(json).map(|read| panic!("{json} was read as {read}")).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
            assert!(!error.contains("98765"), "{error}");
        }
    }

    fn shard() -> impl Strategy<Value = Shard> {
        let server = "[a-z]{1,6}:[1-9]|unix:/[a-z+,;%é ]{1,6}|\\[::[1-9]\\]:6388";
        let of_kind = prop_oneof![
            server.prop_map(Shard::single),
            vec(server, 1..4).prop_map(Shard::cluster),
            vec(server, 1..4).prop_map(Shard::standby),
        ];
        let duration = || option::of((0_u64..1_000_000, 0_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n)));
        // For any kind of shard: users can write `Shard::single(…).orphan_ttl(…)`.
        (of_kind, duration(), duration(), vec("[a-z*.]{1,6}", 0..3)).prop_map(|(shard, kept, delay, hosts)| {
            let shard = kept.into_iter().fold(shard, Shard::orphan_ttl);
            let shard = delay.into_iter().fold(shard, Shard::takeover_delay);
            match hosts.is_empty() {
                true => shard,
                false => shard.allowed_hosts(hosts),
            }
        })
    }

    /// Sets one setting of the table to a valid text.
    fn set(options: ClientOptions, name: &str, seed: u32) -> ClientOptions {
        let setting = find(name).map(|setting| TABLE[setting]).unwrap();
        let text = match (setting.kind(), name) {
            (ValueKind::Whole, _) => seed.to_string(),
            (ValueKind::Truth, _) => (seed % 2 == 0).to_string(),
            // By default, serde_json loses the last bit of longer fractions.
            (ValueKind::Number, _) => (f64::from(seed % 10_000) / 1e4).to_string(),
            (_, "sharding_strategy" | "previous_sharding_strategy") => {
                ["stable_hash_shard", "rendezvous_hash_shard"][seed as usize % 2].to_owned()
            }
            (_, "previous_servers") => format!("a:{},b:1+c:1,unix:%2Fd;e:1", 1 + seed % 65_535),
            (_, "on_unavailable") => ["wait", "fail_fast"][seed as usize % 2].to_owned(),
            (_, "fencing") => ["required", "if_known", "off"][seed as usize % 3].to_owned(),
            (_, "reconnect") => format!("{}ns..{}s", seed, u64::from(seed) + 5),
            _ if setting.form() == DURATION_FORM => format!("{}s{seed}ns", seed % 7),
            _ => ["7", "true", "a b", "1.5", "null"][seed as usize % 5].to_owned(),
        };
        let mut given = SourceSettings::nothing(Source::Data);
        given.add(name, Text::new(text)).unwrap();
        given.into_options(options).unwrap()
    }

    /// All settings that data can contain, except shards, the secret, and TLS, which has its own tests.
    fn settings() -> impl Strategy<Value = Vec<(&'static str, u32)>> {
        let is_meant = |name: &&str| {
            !["servers", "auth_token", "auth_token_env", "auth_token_file"].contains(name) && !name.starts_with("tls")
        };
        let plain = TABLE.iter().filter(|setting| !setting.is_of_shards());
        let names: Vec<&'static str> = plain.map(|setting| setting.name()).filter(is_meant).collect();
        let secret = option::of((select(vec!["auth_token_env", "auth_token_file"]), any::<u32>()));
        let count = names.len();
        (subsequence(names, 0..=count), vec(any::<u32>(), count), secret)
            .prop_map(|(names, seeds, secret)| names.into_iter().zip(seeds).chain(secret).collect())
    }

    proptest! {
        #[test]
        fn all_settings_are_read_as_they_were_written(shards in vec(shard(), 1..4), settings in settings()) {
            let start = ClientOptions { shards, ..ClientOptions::default() };
            let options = settings.iter().fold(start, |options, (name, seed)| {
                // Each step changes one setting in the result of the previous step, which has the shards.
                set(options, name, *seed)
            });
            let json = serde_json::to_string(&options).unwrap();
            let again = read(&json).map_err(|error| TestCaseError::fail(format!("{json}: {error}")))?;
            prop_assert_eq!(&again.shards, &options.shards, "{}", json);
            for setting in TABLE {
                prop_assert_eq!(setting.write(&again), setting.write(&options), "{}", json);
            }
            prop_assert_eq!(again.expose_url(), options.expose_url());
        }

        #[test]
        fn a_shard_is_read_as_it_was_written(shard in shard()) {
            let json = serde_json::to_string(&shard).unwrap();
            prop_assert_eq!(serde_json::from_str::<Shard>(&json).unwrap(), shard);
        }
    }
}
