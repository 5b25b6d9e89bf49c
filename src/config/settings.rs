//! The settings that have a text form: one table for URLs, the environment, data, and `Debug`.
//!
//! A new setting needs one row in [`TABLE`], and one in the table of `docs/guide/src/configuration.md`. A test compares
//! both tables.

use super::ClientOptions;
use super::value::{Text, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::net::auth::AuthSource;
use crate::net::failover::Policy;
use crate::shards::{Shard, Terms, ValueKind};
use crate::tls::{Tls, TlsFiles};

/// One setting.
pub(super) trait Setting: Sync {
    fn name(&self) -> &'static str;

    /// Returns whether the text is a secret.
    fn is_secret(&self) -> bool;

    /// Returns whether the setting can be set for a single shard.
    fn is_of_shards(&self) -> bool;

    /// Returns the type of the value in data.
    fn kind(&self) -> ValueKind;

    /// Describes the form of the text.
    fn form(&self) -> &'static str;

    /// Parses a text and sets the value in a draft. The error says which values are valid.
    fn apply(&self, draft: &mut Draft, shard: Option<usize>, text: &str) -> Result<(), String>;

    /// Returns the values in the options as texts, for all shards or for single shards.
    fn write(&self, options: &ClientOptions) -> Vec<(Option<usize>, Text)>;
}

/// Options during parsing.
pub(super) struct Draft {
    pub(super) options: ClientOptions,
    tls: TlsDraft,
}

/// The settings of TLS. They can only be checked together.
#[derive(Default)]
struct TlsDraft {
    is_wanted: Option<bool>,
    system_roots: Option<bool>,
    platform_verifier: Option<bool>,
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

impl Draft {
    pub(super) fn starting_with(options: ClientOptions) -> Self {
        Self {
            options,
            tls: TlsDraft::default(),
        }
    }

    /// Checks the settings that depend on each other. `called` returns the name of a setting in its source.
    pub(super) fn finish(mut self, called: impl Fn(&str) -> String) -> Result<ClientOptions> {
        self.options.tls = self.tls.finish(called)?;
        Ok(self.options)
    }
}

impl TlsDraft {
    fn finish(self, called: impl Fn(&str) -> String) -> Result<Option<Tls>> {
        let refuse = |problem: String| Err(Error::new(ErrorKind::InvalidInput, problem));
        let said = [
            ("tls_system_roots", self.system_roots.is_some()),
            ("tls_platform_verifier", self.platform_verifier.is_some()),
            ("tls_ca_file", self.ca.is_some()),
            ("tls_client_certificate_file", self.certificate.is_some()),
            ("tls_client_key_file", self.key.is_some()),
            ("tls_server_name", self.server_name.is_some()),
        ];
        if self.is_wanted != Some(true) {
            return match said.iter().find(|(_, is_said)| *is_said) {
                Some((name, _)) => refuse(format!(
                    "{} is given, but TLS is not asked for: give {} as true, too",
                    called(name),
                    called("tls")
                )),
                None => Ok(None),
            };
        }
        let client = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return refuse(format!(
                    "{} and {} belong together: give both, or none",
                    called("tls_client_certificate_file"),
                    called("tls_client_key_file")
                ));
            }
        };
        let platform_verifier = self.platform_verifier == Some(true);
        if platform_verifier && self.system_roots == Some(true) {
            return refuse(format!(
                "{} and {} are both given: the platform's verifier decides by itself whom it trusts, so leave out the first",
                called("tls_system_roots"),
                called("tls_platform_verifier")
            ));
        }
        let files = TlsFiles {
            system_roots: self.system_roots.unwrap_or(self.ca.is_none() && !platform_verifier),
            platform_verifier,
            ca: self.ca,
            client,
            server_name: self.server_name,
        };
        if !files.system_roots && !platform_verifier && files.ca.is_none() {
            return refuse(format!(
                "TLS trusts no authority: give {}, or {} or {} as true",
                called("tls_ca_file"),
                called("tls_system_roots"),
                called("tls_platform_verifier")
            ));
        }
        let tls = Tls::of_files(files);
        tls.map(Some)
            .or_else(|error| refuse(format!("{}: {}", called("tls"), error.message())))
    }
}

/// A setting of the client.
struct Field<T: 'static> {
    name: &'static str,
    is_secret: bool,
    get: fn(&ClientOptions) -> T,
    set: fn(&mut Draft, T),
}

impl<T: Value> Setting for Field<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_secret(&self) -> bool {
        self.is_secret
    }

    fn is_of_shards(&self) -> bool {
        false
    }

    fn kind(&self) -> ValueKind {
        T::KIND
    }

    fn form(&self) -> &'static str {
        T::FORM
    }

    fn apply(&self, draft: &mut Draft, _shard: Option<usize>, text: &str) -> Result<(), String> {
        (self.set)(draft, T::read(text)?);
        Ok(())
    }

    fn write(&self, options: &ClientOptions) -> Vec<(Option<usize>, Text)> {
        (self.get)(options)
            .write()
            .map(|text| (None, text))
            .into_iter()
            .collect()
    }
}

const fn field<T>(name: &'static str, get: fn(&ClientOptions) -> T, set: fn(&mut Draft, T)) -> Field<T> {
    Field {
        name,
        is_secret: false,
        get,
        set,
    }
}

const fn secret<T>(name: &'static str, get: fn(&ClientOptions) -> T, set: fn(&mut Draft, T)) -> Field<T> {
    Field {
        is_secret: true,
        ..field(name, get, set)
    }
}

/// A setting for shards of one kind.
struct ShardField<T: 'static> {
    name: &'static str,
    /// A secret can only be set for a single shard.
    is_secret: bool,
    policy: Policy,
    get: fn(&Terms) -> Option<T>,
    set: fn(Shard, T) -> Shard,
}

impl<T: Value + Clone> Setting for ShardField<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_secret(&self) -> bool {
        self.is_secret
    }

    fn is_of_shards(&self) -> bool {
        true
    }

    fn kind(&self) -> ValueKind {
        T::KIND
    }

    fn form(&self) -> &'static str {
        T::FORM
    }

    fn apply(&self, draft: &mut Draft, shard: Option<usize>, text: &str) -> Result<(), String> {
        let value = T::read(text)?;
        let is_meant = |index: &usize| shard.is_none_or(|one| one == *index);
        let shards = &mut draft.options.shards;
        let meant: Vec<usize> = (0..shards.len())
            .filter(|index| is_meant(index) && shards[*index].policy() == self.policy)
            .collect();
        let kind = match self.policy {
            Policy::Cluster => "clusters (members are joined by +)",
            Policy::Standby => "servers with others in reserve (joined by ;)",
            Policy::Single => "servers that stand alone",
        };
        if meant.is_empty() {
            return Err(match shard {
                Some(index) => format!("it applies to {kind} only, and shard {index} is another kind of shard"),
                None => format!("it applies to {kind} only, and the servers have no such shard"),
            });
        }
        if self.is_secret && meant.len() > 1 {
            return Err(format!(
                "each shard has its own: write {}.0 for that of the first shard, and so on",
                self.name
            ));
        }
        // A value for all shards must not override the value of a single shard.
        let own = |index: &&usize| {
            (self.get)(shards[**index].terms())
                .and_then(|value| value.write())
                .is_some()
        };
        if let Some(index) = meant.iter().find(own) {
            return Err(format!(
                "shard {index} among the servers has {} of its own: give one of them",
                self.name
            ));
        }
        for index in meant {
            shards[index] = (self.set)(shards[index].clone(), value.clone());
        }
        Ok(())
    }

    fn write(&self, options: &ClientOptions) -> Vec<(Option<usize>, Text)> {
        let of_kind: Vec<(Option<usize>, Option<Text>)> = options
            .shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.policy() == self.policy)
            .map(|(index, shard)| (Some(index), (self.get)(shard.terms()).and_then(|value| value.write())))
            .collect();
        let all_alike = of_kind.windows(2).all(|two| two[0].1 == two[1].1);
        let written = of_kind.into_iter().filter_map(|(index, text)| Some((index, text?)));
        match all_alike && !(self.is_secret && options.shards.len() > 1) {
            true => written.take(1).map(|(_, text)| (None, text)).collect(),
            false => written.collect(),
        }
    }
}

/// All settings, in the order of parsing and showing: servers come before their settings.
pub(super) static TABLE: &[&dyn Setting] = &[
    &field("servers", |o| o.shards.clone(), |d, v| d.options.shards = v),
    &ShardField {
        name: "orphan_ttl",
        is_secret: false,
        policy: Policy::Cluster,
        get: |terms| terms.orphan_ttl,
        set: Shard::orphan_ttl,
    },
    &ShardField {
        name: "allowed_hosts",
        is_secret: false,
        policy: Policy::Cluster,
        get: |terms| Some(terms.allowed_hosts.clone()),
        set: |shard, hosts: Vec<String>| shard.allowed_hosts(hosts),
    },
    &ShardField {
        name: "stable_ref",
        is_secret: true,
        policy: Policy::Cluster,
        get: |terms| terms.stable_ref.clone(),
        set: Shard::stable_ref,
    },
    &ShardField {
        name: "takeover_delay",
        is_secret: false,
        policy: Policy::Standby,
        get: |terms| terms.takeover_delay,
        set: Shard::takeover_delay,
    },
    &field("name", |o| o.name.clone(), |d, v| d.options.name = v),
    &field("max_redirects", |o| o.max_redirects, |d, v| d.options.max_redirects = v),
    &secret(
        "auth_token",
        |o| match &o.auth {
            Some(AuthSource::Value(token)) => Some(token.clone()),
            _ => None,
        },
        |d, v: Option<Text>| d.options.auth = v.map(AuthSource::Value),
    ),
    &field(
        "auth_token_env",
        |o| match &o.auth {
            Some(AuthSource::Environment(name)) => Some(name.clone()),
            _ => None,
        },
        |d, v: Option<String>| d.options.auth = v.map(AuthSource::Environment),
    ),
    &field(
        "auth_token_file",
        |o| match &o.auth {
            Some(AuthSource::File(path)) => Some(path.display().to_string()),
            _ => None,
        },
        |d, v: Option<String>| d.options.auth = v.map(|path| AuthSource::File(path.into())),
    ),
    &field(
        "auth_retry_interval",
        |o| o.auth_retry_interval,
        |d, v| d.options.auth_retry_interval = v,
    ),
    &field("tls", |o| o.tls.is_some(), |d, v| d.tls.is_wanted = Some(v)),
    &field(
        "tls_system_roots",
        |o| of_tls(o, |files| files.system_roots.then_some(true)),
        |d, v| d.tls.system_roots = v,
    ),
    &field(
        "tls_platform_verifier",
        |o| of_tls(o, |files| files.platform_verifier.then_some(true)),
        |d, v| d.tls.platform_verifier = v,
    ),
    &field("tls_ca_file", |o| of_tls(o, |files| files.ca), |d, v| d.tls.ca = v),
    &field(
        "tls_client_certificate_file",
        |o| of_tls(o, |files| files.client.map(|(certificate, _)| certificate)),
        |d, v| d.tls.certificate = v,
    ),
    &field(
        "tls_client_key_file",
        |o| of_tls(o, |files| files.client.map(|(_, key)| key)),
        |d, v| d.tls.key = v,
    ),
    &field(
        "tls_server_name",
        |o| of_tls(o, |files| files.server_name),
        |d, v| d.tls.server_name = v,
    ),
    &field(
        "sharding_strategy",
        |o| o.strategy.clone(),
        |d, v| d.options.strategy = v,
    ),
    &field(
        "previous_servers",
        |o| o.previous_shards.clone(),
        |d, v| d.options.previous_shards = v,
    ),
    &field(
        "previous_sharding_strategy",
        |o| o.previous_strategy.clone(),
        |d, v| d.options.previous_strategy = v,
    ),
    &field(
        "connect_timeout",
        |o| o.connect_timeout,
        |d, v| d.options.connect_timeout = v,
    ),
    &field(
        "request_timeout",
        |o| o.request_timeout,
        |d, v| d.options.request_timeout = v,
    ),
    &field(
        "acquire_timeout",
        |o| o.acquire_timeout,
        |d, v| d.options.acquire_timeout = v,
    ),
    &field("lease_ttl", |o| o.lease_ttl, |d, v| d.options.lease_ttl = v),
    &field(
        "renew",
        |o| o.renew_policy.renew,
        |d, v| d.options.renew_policy.renew = v,
    ),
    &field(
        "renew_ratio",
        |o| o.renew_policy.ratio,
        |d, v| d.options.renew_policy.ratio = v,
    ),
    &field(
        "renew_jitter",
        |o| o.renew_policy.jitter,
        |d, v| d.options.renew_policy.jitter = v,
    ),
    &field(
        "max_hold",
        |o| o.renew_policy.max_hold,
        |d, v| d.options.renew_policy.max_hold = v,
    ),
    &field("loss_margin", |o| o.loss_margin, |d, v| d.options.loss_margin = v),
    &field("keepalive", |o| o.keepalive, |d, v| d.options.keepalive = v),
    &field("reply_timeout", |o| o.reply_timeout, |d, v| d.options.reply_timeout = v),
    &field(
        "server_read_timeout",
        |o| o.server_read_timeout,
        |d, v| d.options.server_read_timeout = v,
    ),
    &field("reconnect", |o| o.reconnect.clone(), |d, v| d.options.reconnect = v),
    &field(
        "on_unavailable",
        |o| o.on_unavailable,
        |d, v| d.options.on_unavailable = v,
    ),
    &field(
        "survives_disconnect",
        |o| o.survives_disconnect,
        |d, v| d.options.survives_disconnect = v,
    ),
    &field("fencing", |o| o.fencing, |d, v| d.options.fencing = v),
    &field("max_in_flight", |o| o.max_in_flight, |d, v| d.options.max_in_flight = v),
    &field(
        "pipelined_connections",
        |o| o.pipelined_connections,
        |d, v| d.options.pipelined_connections = v,
    ),
    &field("max_waiters", |o| o.max_waiters, |d, v| d.options.max_waiters = v),
    &field(
        "exclusive_connections",
        |o| o.exclusive_connections,
        |d, v| d.options.exclusive_connections = v,
    ),
    &field(
        "exclusive_connections_per_key",
        |o| o.exclusive_connections_per_key,
        |d, v| d.options.exclusive_connections_per_key = v,
    ),
    &field(
        "idle_connection_timeout",
        |o| o.idle_connection_timeout,
        |d, v| d.options.idle_connection_timeout = v,
    ),
];

fn of_tls<T>(options: &ClientOptions, part: impl FnOnce(TlsFiles) -> Option<T>) -> Option<T> {
    options.tls.as_ref().map(Tls::files).and_then(part)
}

/// The three ways to give the authentication token.
pub(super) const AUTH: [&str; 3] = ["auth_token", "auth_token_env", "auth_token_file"];

/// Returns the index of a setting in the table.
pub(super) fn find(name: &str) -> Option<usize> {
    TABLE.iter().position(|setting| setting.name() == name)
}

/// Returns the settings that differ from their defaults, in the order of the table.
pub(super) fn written(options: &ClientOptions) -> impl Iterator<Item = (&'static dyn Setting, Option<usize>, Text)> {
    let defaults = ClientOptions::default();
    TABLE.iter().flat_map(move |setting| {
        let by_default = setting.write(&defaults);
        let written = setting.write(options);
        let written = if written == by_default { Vec::new() } else { written };
        written.into_iter().map(|(shard, text)| (*setting, shard, text))
    })
}

/// Returns the name of a setting. For a setting of one shard, the number of the shard follows.
pub(super) fn full_name(setting: &dyn Setting, shard: Option<usize>) -> String {
    match shard {
        None => setting.name().to_owned(),
        Some(shard) => format!("{}.{shard}", setting.name()),
    }
}
