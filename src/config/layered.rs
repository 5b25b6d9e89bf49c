//! Options from several sources, and the source of each setting.

use std::ffi::OsString;
use std::fmt;

use super::ClientOptions;
use super::settings::{TABLE, full_name};
use super::source_settings::{Source, SourceSettings};
use super::value::Text;
use super::{environment, url};
use crate::error::Result;

/// The settings of several sources with an order of precedence, for example flags over the environment over a file.
/// [`read`](Self::read) parses them together.
///
/// The sources are those of [`ClientOptions`], with the same settings and names. The value of a setting comes from the
/// highest source that contains it. If a source names the servers, the settings of shards in lower sources, such as
/// `orphan_ttl`, are ignored.
///
/// ```
/// use dflockd_client::{LayeredOptions, SettingSource};
///
/// let flags = LayeredOptions::from_pairs([("lease_ttl", "10s")])?;
/// let environment = LayeredOptions::from_vars([("DFLOCKD_URL", "dflockd://sesame@a.example/?lease_ttl=20s")])?;
/// let file: LayeredOptions = serde_json::from_str(r#"{"servers": "b.example", "keepalive": "5s"}"#)?;
///
/// let layered = flags.over(environment).over(file);
/// let options = layered.read()?;
/// assert_eq!(options.to_string(), "dflockd://…@a.example:6388/?lease_ttl=10s&keepalive=5s");
/// let values = layered.values()?;
/// let keepalive = values.iter().find(|setting| setting.name == "keepalive").expect("all settings are listed");
/// assert_eq!((keepalive.value.as_deref(), keepalive.source), (Some("5s"), SettingSource::Data));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LayeredOptions {
    given: SourceSettings,
}

impl LayeredOptions {
    pub(super) fn new(given: SourceSettings) -> Self {
        Self { given }
    }

    /// Reads the settings of a URL. See [`ClientOptions::from_url`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a text that is not a URL, and for a setting that is unknown
    /// or given twice. [`read`](Self::read) checks the values.
    pub fn from_url(url: &str) -> Result<Self> {
        url::read(url).map(Self::new)
    }

    /// Reads the settings of the environment. See [`ClientOptions::from_env`].
    ///
    /// # Errors
    ///
    /// As [`from_url`](Self::from_url), for a value that is not UTF-8, and if both `DFLOCKD_URL` and `DFLOCKD_SERVERS`
    /// are set.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the settings of the given variables, as [`from_env`](Self::from_env) does.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Result<Self>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        environment::read(variables).map(Self::new)
    }

    /// Reads settings from pairs of a name and a text as in URLs, for example from a program's flags. `orphan_ttl.2`
    /// sets `orphan_ttl` for shard 2 only.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a setting that is unknown or given twice.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self>
    where
        N: AsRef<str>,
        V: Into<String>,
    {
        let mut given = SourceSettings::nothing(Source::Pairs);
        for (name, value) in pairs {
            given.add_named(name.as_ref(), Text::new(value.into()))?;
        }
        Ok(Self::new(given))
    }

    /// Puts this source above `lower`. An authentication token in this source overrides one in `lower`, even if they
    /// are given in different ways (as a text, a variable or a file).
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self::new(self.given.over(lower.given))
    }

    /// Parses all settings.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput). The message names the setting and says which values are valid.
    pub fn read(&self) -> Result<ClientOptions> {
        self.given.clone().into_options(ClientOptions::default())
    }

    /// Returns all settings, including those with default values, and the source of each. Secrets are not shown.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn values(&self) -> Result<Vec<SettingValue>> {
        let options = self.read()?;
        let mut values = Vec::with_capacity(TABLE.len());
        for setting in TABLE {
            let mut variable = Source::Environment.spell(setting.name());
            let source = match self.given.source_of(setting.name()) {
                None => SettingSource::Default,
                Some(Source::Url) => SettingSource::Url,
                Some(Source::Environment) => SettingSource::Environment,
                Some(Source::Variable(name)) => {
                    name.clone_into(&mut variable);
                    SettingSource::Environment
                }
                Some(Source::Data) => SettingSource::Data,
                Some(Source::Pairs) => SettingSource::Pairs,
            };
            let mut written: Vec<(Option<usize>, Option<String>)> = Vec::new();
            for (shard, text) in setting.write(&options) {
                let shown = if setting.is_secret() { "…" } else { text.as_str() };
                written.push((shard, Some(shown.to_owned())));
            }
            if written.is_empty() {
                written.push((None, None));
            }
            values.extend(written.into_iter().map(|(shard, value)| SettingValue {
                name: full_name(*setting, shard),
                variable: variable.clone(),
                value,
                is_secret: setting.is_secret(),
                source,
            }));
        }
        Ok(values)
    }
}

/// Shows the effective settings, with `…` in place of secrets.
impl fmt::Debug for LayeredOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read() {
            Ok(options) => f.debug_tuple("LayeredOptions").field(&options).finish(),
            Err(error) => f.debug_tuple("LayeredOptions").field(&error).finish(),
        }
    }
}

/// An effective setting. See [`LayeredOptions::values`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingValue {
    /// The name. For a setting of one shard, the number of the shard follows: `orphan_ttl.2`.
    pub name: String,
    /// The environment variable that sets or can set it.
    pub variable: String,
    /// The text, as in a URL. `…` for a secret; `None` if it is not set and has no default.
    pub value: Option<String>,
    /// Whether the value is a secret.
    pub is_secret: bool,
    /// The source of the value.
    pub source: SettingSource,
}

/// The source of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SettingSource {
    /// No source: the setting has its default.
    Default,
    /// A URL.
    Url,
    /// An environment variable: its own, or `DFLOCKD_URL`.
    Environment,
    /// Deserialized data, such as a file.
    Data,
    /// A pair of a name and a text: see [`LayeredOptions::from_pairs`].
    Pairs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(pairs: &[(&str, &str)]) -> LayeredOptions {
        LayeredOptions::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn data(json: &str) -> LayeredOptions {
        serde_json::from_str(json).unwrap()
    }

    fn shown(layered: &LayeredOptions) -> String {
        layered.read().unwrap().expose_url()
    }

    #[test]
    fn the_highest_source_that_gives_a_setting_decides() {
        let flags = layer(&[("lease_ttl", "10s")]);
        let variables =
            LayeredOptions::from_vars([("DFLOCKD_CLIENT_LEASE_TTL", "20s"), ("DFLOCKD_AUTH_TOKEN", "sesame")]).unwrap();
        let file = data(r#"{"servers": "a:1", "lease_ttl": "30s", "keepalive": "5s", "auth_token_file": "/x"}"#);
        let all = flags.over(variables).over(file);
        assert_eq!(shown(&all), "dflockd://sesame@a:1/?lease_ttl=10s&keepalive=5s");
        assert!(!format!("{all:?} {:?}", all.values()).contains("sesame"));
        let source = |name: &str| {
            all.values()
                .unwrap()
                .into_iter()
                .find(|setting| setting.name == name)
                .unwrap()
                .source
        };
        let expected = [
            ("lease_ttl", SettingSource::Pairs),
            ("auth_token", SettingSource::Environment),
            ("keepalive", SettingSource::Data),
            ("servers", SettingSource::Data),
            ("connect_timeout", SettingSource::Default),
        ];
        for (name, expected) in expected {
            assert_eq!(source(name), expected, "{name}");
        }
    }

    #[test]
    fn settings_of_single_shards_come_from_the_source_of_the_servers() {
        let file = data(
            r#"{"servers": [{"cluster": ["a:1", "b:1"], "orphan_ttl": "30s", "stable_ref": "sesame"}, {"cluster": ["c:1"]}, "d:1"]}"#,
        );
        assert_eq!(
            shown(&file),
            "dflockd://a:1+b:1,c:1+,d:1/?orphan_ttl.0=30s&stable_ref.0=sesame"
        );
        let values = file.values().unwrap();
        let of_shard = values.iter().find(|setting| setting.name == "stable_ref.0").unwrap();
        assert_eq!(
            (of_shard.value.as_deref(), of_shard.source),
            (Some("…"), SettingSource::Data)
        );
        let elsewhere = layer(&[("servers", "e:1")]).over(file.clone());
        let both = serde_json::from_str::<LayeredOptions>(
            r#"{"servers": [{"cluster": ["a:1", "b:1"], "orphan_ttl": "30s"}], "orphan_ttl": "9s"}"#,
        );
        assert!(both.is_err_and(|error| error.to_string().contains("orphan_ttl")));
        assert_eq!(shown(&elsewhere), "dflockd://e:1");
        let other = layer(&[("orphan_ttl.1", "9s")]).over(file);
        assert_eq!(
            shown(&other),
            "dflockd://a:1+b:1,c:1+,d:1/?orphan_ttl.1=9s&stable_ref.0=sesame"
        );
    }

    #[test]
    fn a_url_can_be_a_source_by_itself_or_as_data() {
        let url = LayeredOptions::from_url("dflockd://a:1/?keepalive=5s").unwrap();
        assert_eq!(shown(&data(r#""dflockd://a:1/?keepalive=5s""#)), shown(&url));
        assert_eq!(
            shown(&layer(&[("keepalive", "6s")]).over(url)),
            "dflockd://a:1/?keepalive=6s"
        );
    }

    #[test]
    fn errors_name_the_invalid_setting() {
        let twice = LayeredOptions::from_pairs([("tls", "1"), ("tls", "1")]).unwrap_err();
        assert!(twice.to_string().contains("setting tls is given twice"), "{twice}");
        let unknown = LayeredOptions::from_pairs([("lease", "1s")]).unwrap_err();
        assert!(unknown.to_string().contains("there is no such setting"), "{unknown}");
        let unread = layer(&[("lease_ttl", "1")]).read().unwrap_err();
        assert!(unread.to_string().starts_with("setting lease_ttl \"1\""), "{unread}");
    }
}
