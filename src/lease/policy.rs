//! The renewal policy of leases.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::Pace;
use crate::error::Result;
use crate::human::optional_as_text;

/// Sets how a lease is renewed: after which part of its TTL, with how much random variation, for how long, or not at
/// all.
///
/// [`ClientBuilder::renew_policy`](crate::ClientBuilder::renew_policy) takes a whole policy for all leases of a client,
/// and the `renew_policy` of a handle takes one for its own leases. Setters such as
/// [`Lock::renew_ratio`](crate::Lock::renew_ratio) change one part of the policy of their handle.
///
/// ```
/// use std::time::Duration;
///
/// use dflockd_client::{Client, RenewPolicy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// // Early, and for an hour at most.
/// let policy = RenewPolicy::default().ratio(0.3).max_hold(Duration::from_secs(3600));
/// assert_eq!(policy.to_string(), "at 0.3 of the TTL, up to 0.1 of that earlier, for 3600s at most");
///
/// let client = Client::builder().servers([address]).renew_policy(policy).build()?;
/// let once = client.lock("orders/42")?.renew_policy(RenewPolicy::off());
/// # once.acquire().await?.release().await
/// # }
/// ```
///
/// The numbers are checked when the client is built or the lease is acquired. A policy is serialized as a map of
/// `renew`, `ratio`, `jitter` and `max_hold`, where durations are texts with units such as `1h`. Missing entries have
/// their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RenewPolicy {
    pub(crate) renew: bool,
    pub(crate) ratio: f64,
    pub(crate) jitter: f64,
    #[serde(with = "optional_as_text", skip_serializing_if = "Option::is_none")]
    pub(crate) max_hold: Option<Duration>,
}

/// Renews a lease when half of the TTL is over, or up to a tenth of that time earlier, for as long as the lease is
/// held.
impl Default for RenewPolicy {
    fn default() -> Self {
        Self {
            renew: true,
            ratio: 0.5,
            jitter: 0.1,
            max_hold: None,
        }
    }
}

impl RenewPolicy {
    /// Returns the policy that never renews: a lease is lost when its TTL is over.
    #[must_use]
    pub fn off() -> Self {
        Self {
            renew: false,
            ..Self::default()
        }
    }

    /// Sets the part of its TTL that passes before a lease is renewed, more than 0 and less than 1. Default: 0.5.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets the part of the time before a renewal that jitter may remove: 0 or more, and less than 1. Each renewal
    /// comes earlier by a random time up to that part. Without jitter, leases that were acquired together are also
    /// renewed together. Default: 0.1.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Stops renewing once a lease has been held for this long: it is lost at most a TTL later, even if its holder is
    /// still at work. Default: no such limit.
    #[must_use]
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// Checks the policy and returns the terms for a lease.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, naming the number that is wrong.
    pub(crate) fn check(&self) -> Result<RenewTerms> {
        Ok(RenewTerms {
            never: !self.renew,
            max_hold: self.max_hold,
            pace: Some(Pace::new(self.ratio, self.jitter)?),
        })
    }
}

/// Describes the policy in words.
impl fmt::Display for RenewPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.renew {
            return f.write_str("off");
        }
        write!(f, "at {} of the TTL", self.ratio)?;
        if self.jitter != 0.0 {
            write!(f, ", up to {} of that earlier", self.jitter)?;
        }
        match self.max_hold {
            Some(max_hold) => write!(f, ", for {max_hold:?} at most"),
            None => Ok(()),
        }
    }
}

/// The checked renewal terms of the leases of one acquire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RenewTerms {
    /// Whether the lease is never renewed.
    pub(crate) never: bool,
    /// No renewal is sent when this time has passed since the grant.
    pub(crate) max_hold: Option<Duration>,
    /// The pace of the renewals, if it differs from the client's.
    pub(crate) pace: Option<Pace>,
}

impl RenewTerms {
    /// Returns these terms for a client whose pace is `pace`. Drops the lease's own pace if it is the same.
    pub(crate) fn relative_to(self, pace: Pace) -> Self {
        Self {
            pace: self.pace.filter(|own| *own != pace),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_was_written_and_missing_entries_have_defaults() {
        let policy = RenewPolicy::default().ratio(0.25).max_hold(Duration::from_secs(90));
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(text, r#"{"renew":true,"ratio":0.25,"jitter":0.1,"max_hold":"90s"}"#);
        assert_eq!(serde_json::from_str::<RenewPolicy>(&text).unwrap(), policy);
        let read: RenewPolicy = serde_json::from_str(r#"{"max_hold": "1m30s", "ratio": 0.25}"#).unwrap();
        assert_eq!(read, policy);
        let off = serde_json::to_string(&RenewPolicy::off()).unwrap();
        assert_eq!(serde_json::from_str::<RenewPolicy>(&off).unwrap(), RenewPolicy::off());
        for wrong in [r#"{"max_hold": 90}"#, r#"{"max_hold": "90"}"#, r#"{"maximum": 1}"#] {
            assert!(serde_json::from_str::<RenewPolicy>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_policy_is_shown_in_words() {
        assert_eq!(RenewPolicy::off().to_string(), "off");
        assert_eq!(RenewPolicy::default().jitter(0.0).to_string(), "at 0.5 of the TTL");
    }

    #[test]
    fn each_bad_number_is_named_with_its_remedy() {
        for (policy, said) in [
            (RenewPolicy::default().ratio(1.0), "renew ratio 1.0 is not acceptable"),
            (RenewPolicy::default().ratio(f64::NAN), "more than 0 and less than 1"),
            (RenewPolicy::off().ratio(-0.5), "renew ratio -0.5"),
            (RenewPolicy::default().jitter(1.0), "renew jitter 1.0 is not acceptable"),
            (RenewPolicy::default().jitter(-0.1), "0 or more, and less than 1"),
            (RenewPolicy::default().jitter(f64::NAN), "renew jitter NaN"),
        ] {
            let error = policy.check().unwrap_err().to_string();
            assert!(error.contains(said), "{policy:?}: {error}");
        }
    }
}
