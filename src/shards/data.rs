//! Shards in serialized data: a text as in URLs, or a map with the servers and their settings.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::datum::{Datum, ValueKind};
use super::{Shard, Terms};
use crate::escape::Shortened;
use crate::human::{DURATION_FORM, read_duration, write_duration};
use crate::net::endpoint::without_secret;
use crate::net::failover::Policy;
use crate::protocol::StableRef;

/// A shard of one of the three kinds, and its settings.
#[derive(Default, Serialize)]
struct Map {
    #[serde(skip_serializing_if = "Option::is_none")]
    single: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standby: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    takeover_delay: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orphan_ttl: Option<String>,
    #[serde(skip)]
    stable_ref: Option<Zeroizing<String>>,
}

/// The names of the entries of a map.
const NAMES: [&str; 7] = [
    "single",
    "cluster",
    "standby",
    "takeover_delay",
    "allowed_hosts",
    "orphan_ttl",
    "stable_ref",
];

impl Map {
    /// Sets a value. The error does not show the value, which may be a secret.
    fn set(&mut self, name: &str, value: Datum) -> Result<(), String> {
        let text = |value: Datum| {
            value
                .text_of(ValueKind::Text)
                .map(|text| text.map(|text| String::clone(&text)))
        };
        match name {
            "single" => self.single = text(value)?,
            "cluster" => self.cluster = value.list()?,
            "standby" => self.standby = value.list()?,
            "takeover_delay" => self.takeover_delay = text(value)?,
            "allowed_hosts" => self.allowed_hosts = value.list()?.unwrap_or_default(),
            "orphan_ttl" => self.orphan_ttl = text(value)?,
            "stable_ref" => self.stable_ref = value.text_of(ValueKind::Text)?,
            _ => {
                return Err(format!(
                    "there is no such setting of a shard; the settings are {}",
                    NAMES.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// Converts the map to a shard.
    fn shard(self) -> Result<Shard, String> {
        let mut shard = match (self.single, self.cluster, self.standby) {
            (Some(server), None, None) => Shard::single(server),
            (None, Some(members), None) => Shard::cluster(members),
            (None, None, Some(servers)) => Shard::standby(servers),
            _ => return Err("a shard has one of single, cluster and standby".to_owned()),
        };
        for (name, is_given, policy, kind) in [
            (
                "takeover_delay",
                self.takeover_delay.is_some(),
                Policy::Standby,
                "standby",
            ),
            (
                "allowed_hosts",
                !self.allowed_hosts.is_empty(),
                Policy::Cluster,
                "cluster",
            ),
            ("orphan_ttl", self.orphan_ttl.is_some(), Policy::Cluster, "cluster"),
            ("stable_ref", self.stable_ref.is_some(), Policy::Cluster, "cluster"),
        ] {
            if is_given && shard.policy != policy {
                return Err(format!(
                    "{name} applies to a {kind} only, and {shard:?} is another kind of shard"
                ));
            }
        }
        if let Some(delay) = self.takeover_delay {
            shard = shard.takeover_delay(duration("takeover_delay", &delay)?);
        }
        if let Some(kept) = self.orphan_ttl {
            shard = shard.orphan_ttl(duration("orphan_ttl", &kept)?);
        }
        if let Some(name) = self.stable_ref {
            shard = shard.stable_ref(StableRef::new(name.as_str()).map_err(|error| error.to_string())?);
        }
        Ok(shard.allowed_hosts(self.allowed_hosts))
    }

    fn of(shard: &Shard) -> Self {
        let mut map = Self {
            takeover_delay: shard.terms.takeover_delay.map(write_duration),
            allowed_hosts: shard.terms.allowed_hosts.clone(),
            orphan_ttl: shard.terms.orphan_ttl.map(write_duration),
            ..Self::default()
        };
        let mut servers = shard.endpoints.iter().map(|server| without_secret(server).into_owned());
        match shard.policy {
            Policy::Single => map.single = servers.next(),
            Policy::Cluster => map.cluster = Some(servers.collect()),
            Policy::Standby => map.standby = Some(servers.collect()),
        }
        map
    }
}

fn duration(name: &str, text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| format!("{name} {text:?} is not acceptable: write {DURATION_FORM}"))
}

/// Deserializes a shard from a text as in [URLs](crate::ClientOptions), or from a map with one of `single`, `cluster`
/// and `standby`, and optionally `takeover_delay`, `allowed_hosts`, `orphan_ttl` and `stable_ref`. Addresses in a map
/// have the form that [`Shard::single`] takes.
impl<'de> Deserialize<'de> for Shard {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

/// Deserializes a text or a map.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Shard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shard: a text such as \"a:6388+b:6388\", or a map with one of single, cluster and standby")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Shard, E> {
        Shard::read(text.trim()).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shard, A::Error> {
        let mut read = Map::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let refuse = |problem: &str| A::Error::custom(format!("{:?} of a shard: {problem}", Shortened(&name)));
            if seen.contains(&name) {
                return Err(refuse("it is given twice"));
            }
            read.set(&name, map.next_value()?).map_err(|problem| refuse(&problem))?;
            seen.push(name);
        }
        read.shard().map_err(A::Error::custom)
    }
}

/// Serializes a shard as a text, or as a map if it has settings. Leaves out the [`stable_ref`](Shard::stable_ref),
/// which is a secret.
impl Serialize for Shard {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let without_secret = Terms {
            stable_ref: None,
            ..self.terms.clone()
        };
        match without_secret == Terms::default() {
            true => to.serialize_str(&self.write()),
            false => Map::of(self).serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shown_shard_and_an_error_contain_no_secret() {
        for shard in [
            r#""ses%ame@a:1""#,
            r#""ses++ame@a:1""#,
            r#""s+es;s@a:1""#,
            r#""se%xs%40a:1""#,
            r#"{"cluster": "sesame@a:1"}"#,
            r#"{"cluster": ["a:1"], "stable_ref": ["sesame"]}"#,
            r#"{"single": {"sesame": 1}}"#,
        ] {
            let error = serde_json::from_str::<Shard>(shard).unwrap_err().to_string();
            assert!(!error.contains("se%") && !error.contains("ses"), "{shard}: {error}");
        }
        let shard = Shard::cluster(["sesame@a:1"]).orphan_ttl(Duration::from_secs(30));
        let written = serde_json::to_string(&shard).unwrap();
        assert!(written.contains("30s") && !written.contains("ses"), "{written}");
    }

    use super::*;

    fn read(json: &str) -> Result<Shard, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_shard_is_a_text_or_a_map() {
        let cluster = Shard::cluster(["a:1", "b:1"]);
        for (json, shard) in [
            (r#""a:1""#, Shard::single("a:1")),
            (r#""a:1+b:1""#, cluster.clone()),
            (r#"{"cluster": ["a:1", "b:1"]}"#, cluster.clone()),
            (r#"{"single": "a:1"}"#, Shard::single("a:1")),
            (
                r#"{"standby": ["a:1", "b:1"], "takeover_delay": "40s"}"#,
                Shard::standby(["a:1", "b:1"]).takeover_delay(Duration::from_secs(40)),
            ),
            (
                r#"{"cluster": ["a:1", "b:1"], "orphan_ttl": "30s", "allowed_hosts": ["*.x"], "stable_ref": "me"}"#,
                cluster
                    .orphan_ttl(Duration::from_secs(30))
                    .allowed_hosts(["*.x"])
                    .stable_ref(StableRef::new("me").unwrap()),
            ),
        ] {
            assert_eq!(read(json).as_ref(), Ok(&shard), "{json}");
            let written = serde_json::to_string(&shard).unwrap();
            assert!(!written.contains("me\""), "{written}");
            let again = read(&written).unwrap();
            assert_eq!((again.policy, &again.endpoints), (shard.policy, &shard.endpoints));
            assert_eq!(again.terms.orphan_ttl, shard.terms.orphan_ttl);
        }
    }

    #[test]
    fn an_invalid_map_is_refused_with_the_reason() {
        for (json, said) in [
            ("{}", "one of single, cluster and standby"),
            (
                r#"{"single": "a:1", "cluster": ["b:1"]}"#,
                "one of single, cluster and standby",
            ),
            (
                r#"{"single": "a:1", "orphan_ttl": "1s"}"#,
                "orphan_ttl applies to a cluster only",
            ),
            (
                r#"{"cluster": ["a:1"], "takeover_delay": "1s"}"#,
                "takeover_delay applies to a standby only",
            ),
            (
                r#"{"cluster": ["a:1"], "orphan_ttl": "1"}"#,
                "orphan_ttl \"1\" is not acceptable",
            ),
            (r#""a:1+b:x""#, "\"b:x\""),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
        let error = read(r#"{"cluster": ["a:1"], "orphan": "1s"}"#).unwrap_err();
        assert!(
            error.contains("\"orphan\" of a shard: there is no such setting") && error.contains("orphan_ttl"),
            "{error}"
        );
        for (json, said) in [
            (
                r#"{"cluster": "a:1"}"#,
                "\"cluster\" of a shard: it is a text, and should be a list of texts",
            ),
            (
                r#"{"single": 7}"#,
                "\"single\" of a shard: it is a number, and should be a text",
            ),
            (
                r#"{"cluster": ["a:1", 7]}"#,
                "it is a list with values that are not texts, and should be a list of texts",
            ),
            (
                r#"{"cluster": ["a:1"], "orphan_ttl": 30}"#,
                "\"orphan_ttl\" of a shard: it is a number, and should be a text",
            ),
            (
                r#"{"single": "a:1", "single": "b:1"}"#,
                "\"single\" of a shard: it is given twice",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
