//! Checks the options when a client is built.

use std::sync::Arc;
use std::time::Duration;

use super::{ClientOptions, Config, OnUnavailable, ShardConfig, Supplied};
use crate::error::{Error, Result};
use crate::events::{ClientEvent, EventHub};
use crate::human::human;
use crate::lease::schedule::{Pace, Schedule};
use crate::net::auth::Credentials;
use crate::net::refusals::Refusals;
use crate::net::settings::ConnectionSettings;
use crate::shard::Settings;
use crate::telemetry::client_name::ClientName;
use crate::tls::Tls;
use crate::types::Ttl;

/// The longest timeout for a silent connection that the operating system accepts, 24 days: Linux stores it in
/// milliseconds, in 31 bits.
pub(crate) const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 24 * 3600);

/// The minimum time between the detection of a dead connection and the end of the servers' read timeout, when the
/// server grants the connection's leases to other holders. It allows for delays on both sides. If the read timeout is
/// shorter than ten seconds, a tenth of it is used instead.
const READ_TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// The maximum number of pipelined connections of a shard.
const MOST_PIPELINED: usize = 16;

impl ClientOptions {
    /// Checks the options as [`ClientBuilder::build`](crate::ClientBuilder::build) does, without building a client. For
    /// example, this finds numbers that are too large, inconsistent times and missing TLS files.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput). The message names the invalid value or file and says which
    /// values are valid.
    ///
    /// ```
    /// use dflockd_client::ClientOptions;
    ///
    /// let options = ClientOptions::from_url("dflockd://a.example/?lease_ttl=500ms")?;
    /// let refused = options.validate().unwrap_err();
    /// assert!(refused.to_string().contains("give at least 1 s"), "{refused}");
    /// # Ok::<(), dflockd_client::Error>(())
    /// ```
    pub fn validate(&self) -> Result<()> {
        self.clone().check(Supplied::default()).map(drop)
    }

    pub(crate) fn check(self, supplied: Supplied) -> Result<Config> {
        let (shards, placement) = self.place()?;
        let name = ClientName::new(self.name.as_deref())?;
        positive("auth_retry_interval", self.auth_retry_interval)?;
        let credentials = Credentials::new(self.auth, self.auth_retry_interval)?;
        let events = EventHub::new(supplied.callbacks);
        let told = events.clone();
        let refusals = Refusals::new(move |shard, endpoint, error| {
            told.of_shard(shard).tell(|shard| ClientEvent::AuthRefused {
                shard,
                endpoint: Arc::clone(endpoint),
                error: error.clone(),
            });
        });
        let tls = self.tls.map(Tls::check).transpose()?;
        if let Some(tls) = &tls {
            for endpoint in shards.iter().flat_map(|shard| &shard.endpoints) {
                tls.check_host(endpoint.host())
                    .map_err(|error| error.at(endpoint.shared_text()))?;
            }
        }
        let lease_ttl = self.lease_ttl.map(Ttl::new).transpose()?;
        let pace = Pace::new(self.renew_policy.ratio, self.renew_policy.jitter)?;
        positive("connect_timeout", self.connect_timeout)?;
        positive("request_timeout", self.request_timeout)?;
        positive("keepalive", self.keepalive)?;
        positive("reply_timeout", self.reply_timeout)?;
        positive("idle_connection_timeout", self.idle_connection_timeout)?;
        notices_dead_connections(
            self.keepalive.saturating_add(self.reply_timeout),
            self.server_read_timeout,
        )?;
        if !(1..=MOST_PIPELINED).contains(&self.pipelined_connections) {
            return Err(Error::invalid(
                "pipelined_connections",
                self.pipelined_connections,
                &format!("give 1 to {MOST_PIPELINED}"),
            ));
        }
        let at_least_one = "give at least 1";
        for (what, value) in [
            ("max_in_flight", self.max_in_flight),
            ("max_waiters", self.max_waiters),
            ("exclusive_connections", self.exclusive_connections),
            (
                "exclusive_connections_per_key",
                self.exclusive_connections_per_key.unwrap_or(1),
            ),
        ] {
            if value == 0 {
                return Err(Error::invalid(what, value, at_least_one));
            }
            if value > tokio::sync::Semaphore::MAX_PERMITS {
                return Err(Error::invalid(what, value, "the number is too large"));
            }
        }
        let per_key = self
            .exclusive_connections_per_key
            .unwrap_or_else(|| (self.exclusive_connections / 4).clamp(1, 16));
        Ok(Config {
            shards,
            placement,
            request_timeout: self.request_timeout,
            acquire_timeout: self.acquire_timeout,
            renew_policy: self.renew_policy,
            renew_terms: self.renew_policy.check()?.relative_to(pace),
            sink: supplied.sink.of_client(name.clone()),
            key_class: supplied.key_class,
            events,
            name,
            shard: ShardConfig {
                connection: Arc::new(ConnectionSettings {
                    credentials: Arc::new(credentials),
                    refusals: Arc::new(refusals),
                    servers: Arc::default(),
                    tls,
                    way: supplied.way,
                    fencing: self.fencing,
                    connect_timeout: self.connect_timeout,
                    keepalive: self.keepalive,
                    reply_timeout: self.reply_timeout,
                    max_in_flight: self.max_in_flight,
                }),
                machine: Settings {
                    schedule: Schedule {
                        pace,
                        margin: self.loss_margin,
                        longest_suspend: (!self.survives_disconnect)
                            .then(|| longest_suspend(self.keepalive, self.server_read_timeout)),
                    },
                    reconnect: self.reconnect,
                    fail_fast: self.on_unavailable == OnUnavailable::FailFast,
                    keepalive: self.keepalive,
                    server_read_timeout: self.server_read_timeout,
                    survives_disconnect: self.survives_disconnect,
                    fencing: self.fencing,
                    pipelined: self.pipelined_connections,
                    exclusive: self.exclusive_connections,
                    exclusive_per_key: per_key,
                    idle_timeout: self.idle_connection_timeout,
                    lease_ttl,
                    max_redirects: self.max_redirects,
                },
                max_waiters: self.max_waiters,
                #[cfg(feature = "server")]
                started: supplied.started,
            },
        })
    }
}

/// Returns how long the machine may be suspended before a server may close the client's connections and release their
/// leases. When the suspend begins, the last message to the server may already be a keepalive interval old. The result
/// also leaves a reserve of a twentieth of the server's read timeout, but at most half of the remaining time.
fn longest_suspend(keepalive: Duration, server_read_timeout: Duration) -> Duration {
    let left = server_read_timeout.saturating_sub(keepalive);
    left - (server_read_timeout / 20).min(left / 2)
}

/// Checks that closing a connection after `silence` is early enough for a server that waits for `patience`, and that
/// the operating system accepts this timeout.
fn notices_dead_connections(silence: Duration, patience: Duration) -> Result<()> {
    let margin = READ_TIMEOUT_MARGIN.min(patience / 10);
    if silence.saturating_add(margin) > patience {
        return Err(Error::invalid(
            "keepalive interval + reply timeout of",
            silence,
            &format!(
                "together they must stay below the server's read timeout of {} by {} at least, or the server could give \
                 leases to others before a dead connection is noticed; if the server runs with another --read-timeout, \
                 say so with server_read_timeout",
                human(patience),
                human(margin)
            ),
        ));
    }
    if silence > LONGEST_SILENCE {
        return Err(Error::invalid(
            "keepalive interval + reply timeout of",
            silence,
            "give at most 24 days for both together, the longest timeout of a socket",
        ));
    }
    Ok(())
}

fn positive(what: &str, duration: Duration) -> Result<()> {
    if duration.is_zero() {
        return Err(Error::invalid(what, duration, "give more than zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::net::auth::AuthSource;

    fn refusal(change: impl FnOnce(&mut ClientOptions)) -> String {
        let mut options = ClientOptions::default();
        change(&mut options);
        match options.check(Supplied::default()) {
            Ok(_) => panic!("the options were accepted"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                error.to_string()
            }
        }
    }

    #[test]
    fn the_default_settings_are_valid() {
        let config = ClientOptions::default().check(Supplied::default()).unwrap();
        assert_eq!(config.shards.len(), 1);
        assert_eq!(
            (config.shard.machine.exclusive, config.shard.machine.exclusive_per_key),
            (1024, 16)
        );
        for (all, per_key) in [(1, 1), (7, 1), (8, 2), (64, 16), (4096, 16)] {
            let options = ClientOptions {
                exclusive_connections: all,
                ..ClientOptions::default()
            };
            assert_eq!(
                options
                    .check(Supplied::default())
                    .unwrap()
                    .shard
                    .machine
                    .exclusive_per_key,
                per_key,
                "{all}"
            );
        }
    }

    #[test]
    fn each_bad_value_is_named_with_its_remedy() {
        assert!(refusal(|o| o.shards.clear()).contains("at least one server"));
        assert!(refusal(|o| o.shards = vec!["nonsense".into()]).contains("\"nonsense\""));
        assert!(refusal(|o| o.shards = vec!["a:1".into(), "a:1".into()]).contains("\"a:1\""));
        for ratio in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                refusal(|o| o.renew_policy.ratio = ratio).contains("renew ratio"),
                "{ratio}"
            );
        }
        assert!(refusal(|o| o.renew_policy.jitter = 1.0).contains("renew jitter 1.0"));
        assert!(refusal(|o| o.lease_ttl = Some(Duration::from_millis(500))).contains("500ms"));
        let nothing = AuthSource::Value(String::new().into());
        assert!(refusal(|o| o.auth = Some(nothing)).contains("auth token"));
        assert!(refusal(|o| o.auth_retry_interval = Duration::ZERO).contains("auth_retry_interval"));
        for count in [0, 17] {
            let text = refusal(|o| o.pipelined_connections = count);
            assert!(text.contains(&format!("pipelined_connections {count}")), "{text}");
        }
        assert!(refusal(|o| o.exclusive_connections = 0).contains("exclusive_connections 0"));
        assert!(refusal(|o| o.max_in_flight = usize::MAX).contains("max_in_flight"));
        assert!(refusal(|o| o.connect_timeout = Duration::ZERO).contains("connect_timeout"));
    }

    #[test]
    fn keepalives_must_detect_a_dead_connection_before_its_leases_end() {
        let text = refusal(|o| o.keepalive = Duration::from_secs(13));
        assert!(
            text.contains("23s by 1s at least") && text.contains("server_read_timeout"),
            "{text}"
        );
        assert!(text.contains("reply timeout of 23s is not acceptable"), "{text}");
        let longer = ClientOptions {
            keepalive: Duration::from_secs(13),
            server_read_timeout: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        assert!(longer.check(Supplied::default()).is_ok());
    }

    #[test]
    fn keepalives_must_detect_a_dead_connection_a_second_or_a_tenth_before_the_read_timeout() {
        let check = |keepalive, reply, patience| {
            let options = ClientOptions {
                keepalive: Duration::from_millis(keepalive),
                reply_timeout: Duration::from_millis(reply),
                server_read_timeout: Duration::from_millis(patience),
                ..ClientOptions::default()
            };
            options
                .check(Supplied::default())
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(12_000, 10_000, 23_000), Ok(()));
        let error = check(12_900, 10_000, 23_000).unwrap_err();
        assert!(
            error.contains("22.9s") && error.contains("23s by 1s at least"),
            "{error}"
        );
        assert!(check(12_001, 10_000, 23_000).is_err());
        assert_eq!(check(100, 440, 600), Ok(()));
        let error = check(100, 441, 600).unwrap_err();
        assert!(error.contains("600ms by 60ms at least"), "{error}");
    }

    #[test]
    fn durations_beyond_the_limits_of_a_socket_are_refused() {
        let silence = |keepalive: Duration, reply_timeout: Duration| {
            let options = ClientOptions {
                keepalive,
                reply_timeout,
                server_read_timeout: Duration::MAX,
                ..ClientOptions::default()
            };
            options
                .check(Supplied::default())
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
        assert_eq!(silence(24 * day - second, second), Ok(()));
        for (keepalive, reply_timeout) in [
            (24 * day, second),
            (second, 30 * day),
            (Duration::MAX / 2, Duration::MAX / 3),
        ] {
            let error = silence(keepalive, reply_timeout).unwrap_err();
            assert!(error.contains("at most 24 days for both together"), "{error}");
        }
    }

    #[test]
    fn a_machine_may_be_suspended_for_less_than_a_server_waits() {
        let secs = Duration::from_secs;
        assert_eq!(longest_suspend(secs(10), secs(23)), Duration::from_millis(11_850));
        assert_eq!(longest_suspend(secs(1), secs(60)), secs(56));
        // The result is never zero, even if little time is left.
        assert_eq!(longest_suspend(secs(58), secs(60)), secs(1));
    }
}
