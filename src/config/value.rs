//! The values of settings, as text.

use std::time::Duration;

use zeroize::Zeroizing;

use super::OnUnavailable;
use crate::error::{Error, Result};
use crate::escape::Shortened;
use crate::human::{DURATION_FORM, read_duration, write_duration};
use crate::net::backoff::ReconnectPolicy;
use crate::net::fencing::Fencing;
use crate::protocol::{AuthToken, StableRef};
use crate::sharding::CheckedStrategy;
use crate::shards::{Shard, ValueKind};

/// The text of a value. It may be a secret, so dropping it wipes the memory.
pub(super) type Text = Zeroizing<String>;

/// A value that has a text form.
pub(super) trait Value: Sized {
    /// The type of the value in data.
    const KIND: ValueKind = ValueKind::Text;

    /// A description of the form of the text.
    const FORM: &'static str;

    /// Parses the value. The error says which values are valid.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes the value so that [`read`](Self::read) returns the same value. Returns `None` if it is not set. The text
    /// of a value that only code can supply cannot be parsed.
    fn write(&self) -> Option<Text>;
}

/// Parses a duration in the form of the settings: a sum of numbers with units, such as `500ms`, `1.5s` or `1m30s`, or
/// `0`. The units are `ns`, `us`, `ms`, `s`, `m`, `h` and `d`, and their longer names. Programs can use this for their
/// own durations.
///
/// # Errors
///
/// [`InvalidInput`](crate::ErrorKind::InvalidInput). The message says which values are valid.
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(dflockd_client::parse_duration("1m30s")?, Duration::from_secs(90));
/// assert!(dflockd_client::parse_duration("90").is_err());
/// # Ok::<(), dflockd_client::Error>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    Duration::read(text).map_err(|remedy| Error::invalid("duration", Shortened(text), &remedy))
}

fn text(value: impl Into<String>) -> Option<Text> {
    Some(Text::new(value.into()))
}

fn of_form<T: Value>() -> String {
    format!("write {}", T::FORM)
}

impl Value for Duration {
    const FORM: &'static str = DURATION_FORM;

    fn read(text: &str) -> Result<Self, String> {
        read_duration(text).ok_or_else(of_form::<Self>)
    }

    fn write(&self) -> Option<Text> {
        text(write_duration(*self))
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: ValueKind = T::KIND;
    const FORM: &'static str = T::FORM;

    fn read(text: &str) -> Result<Self, String> {
        T::read(text).map(Some)
    }

    fn write(&self) -> Option<Text> {
        self.as_ref().and_then(T::write)
    }
}

impl Value for usize {
    const KIND: ValueKind = ValueKind::Whole;
    const FORM: &'static str = "a whole number, such as 16";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.to_string())
    }
}

impl Value for u32 {
    const KIND: ValueKind = ValueKind::Whole;
    const FORM: &'static str = "a whole number, such as 16";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.to_string())
    }
}

impl Value for f64 {
    const KIND: ValueKind = ValueKind::Number;
    const FORM: &'static str = "a number, such as 0.5";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.to_string())
    }
}

impl Value for bool {
    const KIND: ValueKind = ValueKind::Truth;
    const FORM: &'static str = "true or false (or 1 or 0, yes or no, on or off)";

    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(of_form::<Self>()),
        }
    }

    fn write(&self) -> Option<Text> {
        text(self.to_string())
    }
}

/// A name, or a path.
impl Value for String {
    const FORM: &'static str = "a text, or leave it out";

    fn read(text: &str) -> Result<Self, String> {
        match text.is_empty() {
            true => Err(of_form::<Self>()),
            false => Ok(text.to_owned()),
        }
    }

    fn write(&self) -> Option<Text> {
        text(self)
    }
}

/// The authentication token.
impl Value for Text {
    const FORM: &'static str = "the auth token, of 1 to 65536 bytes without line breaks and NUL, or leave it out";

    fn read(text: &str) -> Result<Self, String> {
        match AuthToken::new(text) {
            Ok(_) => Ok(Self::new(text.to_owned())),
            Err(_) => Err(of_form::<Self>()),
        }
    }

    fn write(&self) -> Option<Text> {
        Some(self.clone())
    }
}

impl Value for StableRef {
    const FORM: &'static str = "1 to 64 printable ASCII characters";

    fn read(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.expose())
    }
}

impl Value for Vec<Shard> {
    const FORM: &'static str =
        "servers as host:port; shards are separated by commas, members of a cluster joined by +, reserves by ;";

    fn read(text: &str) -> Result<Self, String> {
        Shard::read_all(text).map_err(|error| error.to_string())
    }

    fn write(&self) -> Option<Text> {
        text(Shard::write_all(self))
    }
}

/// Hosts, separated by commas.
impl Value for Vec<String> {
    const KIND: ValueKind = ValueKind::Texts;
    const FORM: &'static str = "hosts, separated by commas: names, *.domain, addresses or networks";

    fn read(text: &str) -> Result<Self, String> {
        let hosts: Self = text.split(',').map(|host| host.trim().to_owned()).collect();
        match hosts.iter().any(String::is_empty) {
            true => Err(of_form::<Self>()),
            false => Ok(hosts),
        }
    }

    fn write(&self) -> Option<Text> {
        match self.is_empty() {
            true => None,
            false => text(self.join(",")),
        }
    }
}

impl Value for OnUnavailable {
    const FORM: &'static str = "wait or fail_fast";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.as_str())
    }
}

impl Value for Fencing {
    const FORM: &'static str = "required, if_known or off";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| of_form::<Self>())
    }

    fn write(&self) -> Option<Text> {
        text(self.as_str())
    }
}

/// The first and the longest pause of an exponential reconnect policy.
impl Value for ReconnectPolicy {
    const FORM: &'static str = "the first and the longest pause, such as 50ms..5s";

    fn read(text: &str) -> Result<Self, String> {
        let bounds = text
            .split_once("..")
            .and_then(|(first, longest)| Some((read_duration(first)?, read_duration(longest)?)))
            .filter(|(first, longest)| first <= longest);
        match bounds {
            Some((first, longest)) => Ok(Self::exponential(first, longest)),
            None => Err(of_form::<Self>()),
        }
    }

    fn write(&self) -> Option<Text> {
        match self.bounds() {
            Some((first, longest)) => text(format!("{}..{}", write_duration(first), write_duration(longest))),
            None => text(GIVEN_AS_CODE),
        }
    }
}

impl Value for CheckedStrategy {
    const FORM: &'static str = Self::NAMES;

    fn read(text: &str) -> Result<Self, String> {
        Self::named(text).ok_or_else(|| {
            format!(
                "write {}; a strategy of the program's own is given with ClientBuilder::sharding_strategy",
                Self::NAMES
            )
        })
    }

    fn write(&self) -> Option<Text> {
        text(self.name().unwrap_or(GIVEN_AS_CODE))
    }
}

/// Stands for a value that has no text form.
const GIVEN_AS_CODE: &str = "custom";

#[cfg(test)]
mod tests {
    use super::super::ClientOptions;

    #[test]
    fn a_strategy_is_given_by_its_name_in_each_source() {
        let url = "dflockd://a:1,b:1/?sharding_strategy=rendezvous_hash_shard";
        let of_url = ClientOptions::from_url(url).unwrap();
        let of_environment = ClientOptions::from_vars([
            ("DFLOCKD_SERVERS", "a:1,b:1"),
            ("DFLOCKD_CLIENT_SHARDING_STRATEGY", "rendezvous_hash_shard"),
        ]);
        let data = r#"{"servers":["a:1","b:1"],"sharding_strategy":"rendezvous_hash_shard"}"#;
        let of_data: ClientOptions = serde_json::from_str(data).unwrap();
        assert_eq!(serde_json::to_string(&of_data).unwrap(), data);
        for options in [of_url, of_environment.unwrap(), of_data] {
            assert_eq!(options.expose_url(), url);
            let shard = options.strategy.shard("my-key", 16).unwrap();
            assert_eq!(shard, crate::rendezvous_hash_shard("my-key", 16));
        }
        let default = ClientOptions::from_url("dflockd://a:1,b:1/?sharding_strategy=stable_hash_shard").unwrap();
        assert_eq!(default.expose_url(), "dflockd://a:1,b:1");
    }
}
