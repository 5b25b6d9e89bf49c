//! The options of receiving signals.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::LONGEST_SILENCE;
use crate::error::{Error, Result, named};
use crate::human::human;

/// The policy for signals when a consumer is too slow. Dropped signals are always counted:
/// [`SignalConn::dropped`](super::SignalConn::dropped).
///
/// It is shown, parsed and serialized as its [name](Self::as_str).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overflow {
    /// Signals that arrive while the buffer is full are dropped.
    #[default]
    DropNewest,
    /// The oldest signals in the buffer are dropped.
    DropOldest,
    /// The connection is closed: the consumer gets the signals in the buffer, and then the end.
    Disconnect,
}

impl Overflow {
    /// All policies.
    pub(crate) const ALL: [Self; 3] = [Self::DropNewest, Self::DropOldest, Self::Disconnect];

    /// Returns the name of the policy, as configurations use it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Disconnect => "disconnect",
        }
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses a [name](Overflow::as_str).
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown name; the message lists all names.
impl FromStr for Overflow {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("overflow", name, &Self::ALL, Self::as_str)
    }
}

/// The options of receiving signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalOptions {
    pub(crate) buffer: usize,
    pub(crate) overflow: Overflow,
    heartbeat: Option<Duration>,
}

/// The default heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(15);

impl Default for SignalOptions {
    fn default() -> Self {
        Self {
            buffer: 1024,
            overflow: Overflow::default(),
            heartbeat: None,
        }
    }
}

impl SignalOptions {
    /// Sets how many signals may wait for their consumer, from all shards together. A signal may have 64 KiB. Default:
    /// 1024.
    #[must_use]
    pub fn buffer(mut self, signals: usize) -> Self {
        self.buffer = signals;
        self
    }

    /// Sets the policy for signals that arrive while the [buffer](Self::buffer) is full. Default: new signals are
    /// dropped.
    #[must_use]
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Sets after how long without a request the client sends one on each connection, so that the server knows that the
    /// client is alive. Signals that the client receives do not show that. Default: 15 s, or two thirds of the servers'
    /// [read timeout](crate::ClientBuilder::server_read_timeout) if that is less.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// Checks the options against the servers' read timeout. Returns them with the resulting heartbeat.
    pub(crate) fn check(self, server_read_timeout: Duration) -> Result<(Self, Duration)> {
        if self.buffer == 0 {
            return Err(Error::invalid(
                "signal buffer",
                self.buffer,
                "give room for at least 1 signal",
            ));
        }
        let heartbeat = self
            .heartbeat
            .unwrap_or_else(|| HEARTBEAT.min(server_read_timeout.mul_f64(2.0 / 3.0)));
        if heartbeat.is_zero() || heartbeat >= server_read_timeout {
            let remedy = format!(
                "give more than zero and less than the servers' read timeout of {} (server_read_timeout): they close a \
                 connection that is silent for so long",
                human(server_read_timeout)
            );
            return Err(Error::invalid("signal heartbeat", heartbeat, &remedy));
        }
        if heartbeat > LONGEST_SILENCE {
            return Err(Error::invalid(
                "signal heartbeat",
                heartbeat,
                "give at most 24 days, the longest timeout of a socket",
            ));
        }
        Ok((self, heartbeat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_of_more_than_24_days_is_refused() {
        let day = Duration::from_secs(24 * 3600);
        let checked = |heartbeat| SignalOptions::default().heartbeat(heartbeat).check(Duration::MAX);
        assert!(checked(24 * day).is_ok());
        let error = checked(25 * day).unwrap_err().to_string();
        assert!(error.contains("2160000s") && error.contains("24 days"), "{error}");
    }

    #[test]
    fn the_heartbeat_stays_below_the_read_timeout() {
        let heartbeat = |options: SignalOptions, secs| {
            let checked = options.check(Duration::from_secs(secs));
            checked
                .map(|(_, heartbeat)| heartbeat.as_secs())
                .map_err(|error| error.to_string())
        };
        let asked = |secs| SignalOptions::default().heartbeat(Duration::from_secs(secs));
        assert_eq!(heartbeat(SignalOptions::default(), 23), Ok(15));
        assert_eq!(heartbeat(SignalOptions::default(), 9), Ok(6));
        assert_eq!(heartbeat(asked(20), 23), Ok(20));
        for (options, said) in [
            (asked(23), "23s"),
            (asked(0), "0ns"),
            (SignalOptions::default().buffer(0), "buffer 0"),
        ] {
            let error = heartbeat(options, 23).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
