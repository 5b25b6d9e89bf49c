//! Options as data: a map of settings, or a URL.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ClientOptions;
use super::said::{Said, Source};
use super::settings::written;
use super::value::Text;
use crate::shards::Shard;

/// Reads a map of the settings that `docs/configuration.md` lists, or a text that is a [URL](ClientOptions).
///
/// `servers` is a text as in URLs or a list of [shards](Shard). Other values are texts as in URLs; numbers and truth values may be
/// written as such. What is not said has its default. The format must describe itself, as JSON, TOML and YAML do.
impl<'de> Deserialize<'de> for ClientOptions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OptionsReader)
    }
}

/// Writes a map of what differs from the defaults. Secrets are left out, `auth_token` and the `stable_ref` of shards;
/// [`expose_url`](ClientOptions::expose_url) has them.
impl Serialize for ClientOptions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (setting, _, text) in written(self) {
            if setting.name() == "servers" {
                map.serialize_entry("servers", &self.shards)?;
            } else if !setting.is_of_shards() && !setting.is_secret() {
                map.serialize_entry(setting.name(), &Scalar::of(&text))?;
            }
        }
        map.end()
    }
}

/// A value as data have it.
#[derive(Serialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Truth(bool),
    Whole(u64),
    Fraction(f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// A number or a truth value, if its text is that.
    fn of(text: &'a str) -> Self {
        fn exactly<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
            text.parse().ok().filter(|value: &T| value.to_string() == text)
        }
        let is_finite = |value: &f64| value.is_finite();
        None.or_else(|| exactly(text).map(Self::Truth))
            .or_else(|| exactly(text).map(Self::Whole))
            .or_else(|| exactly(text).filter(is_finite).map(Self::Fraction))
            .unwrap_or(Self::Text(text))
    }
}

struct OptionsReader;

impl<'de> Visitor<'de> for OptionsReader {
    type Value = ClientOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of settings of a client, or its URL")
    }

    fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<ClientOptions, E> {
        ClientOptions::from_url(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClientOptions, A::Error> {
        let mut said = Said::nothing(Source::Data);
        let mut start = ClientOptions::default();
        let mut has_servers = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "servers" {
                if std::mem::replace(&mut has_servers, true) {
                    return Err(A::Error::duplicate_field("servers"));
                }
                start.shards = map.next_value::<Servers>()?.0;
            } else if let Some(text) = map.next_value::<ScalarText>()?.0 {
                said.add_named(&name, text).map_err(A::Error::custom)?;
            } else if Source::Data.find(&name).is_none() {
                return Err(A::Error::custom(Source::Data.unknown(&name)));
            }
        }
        said.into_options(start).map_err(A::Error::custom)
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

/// The text of a value; `None` for `null`.
struct ScalarText(Option<Text>);

impl<'de> Deserialize<'de> for ScalarText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarReader)
    }
}

struct ScalarReader;

impl ScalarReader {
    fn text<E>(text: impl ToString) -> Result<ScalarText, E> {
        Ok(ScalarText(Some(Text::new(text.to_string()))))
    }
}

impl<'de> Visitor<'de> for ScalarReader {
    type Value = ScalarText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false, or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<ScalarText, E> {
        Self::text(text)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ScalarText, E> {
        Self::text(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<ScalarText, E> {
        Self::text(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<ScalarText, E> {
        Self::text(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<ScalarText, E> {
        Self::text(value)
    }

    fn visit_unit<E>(self) -> Result<ScalarText, E> {
        Ok(ScalarText(None))
    }

    fn visit_none<E>(self) -> Result<ScalarText, E> {
        Ok(ScalarText(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<ScalarText, D::Error> {
        ScalarText::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ScalarText, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<String>()? {
            items.push(item);
        }
        Self::text(items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ClientOptions, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_map_says_what_a_url_says() {
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
    fn secrets_are_left_out_and_all_else_is_read_as_it_was() {
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
    fn what_is_wrong_is_named() {
        for (json, said) in [
            (
                r#"{"lease_ttl": 10}"#,
                "setting lease_ttl \"10\" is not acceptable: write a duration",
            ),
            (
                r#"{"lease": "10s"}"#,
                "setting \"lease\" is not acceptable: there is no such setting; there are servers, ",
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
            ("7", "a map of settings of a client, or its URL"),
        ] {
            let error = read(json).map(|read| panic!("{json} was read as {read}")).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
