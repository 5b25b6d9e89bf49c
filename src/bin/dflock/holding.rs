//! The guard of what is held: a lock, a slot of a semaphore, or several locks.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use dflockd_client::tokio::time::Instant;
use dflockd_client::{Client, Fence, Key, Lease, LockGuard, LostReason, MultiLockGuard, SemaphorePermit};
use serde::Serialize;

use crate::args::Hold;
use crate::exit::Exit;
use crate::failure::Failure;

/// The guard of a lock, of a slot or of several locks.
pub(crate) enum Held {
    Lock(LockGuard),
    Slot(SemaphorePermit),
    Locks(MultiLockGuard),
}

/// The description for programs, in their environment or as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    /// The key, or the keys with commas between them.
    pub(crate) key: String,
    /// `lock` or `semaphore`.
    pub(crate) kind: &'static str,
    /// The fence, or those of the keys with commas between them; `None` unless all have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fence: Option<String>,
    /// The server, or those of the keys with commas between them.
    pub(crate) server: String,
    /// The TTL in seconds.
    pub(crate) ttl_s: u64,
}

impl Held {
    /// Acquires what the flags ask for. The client already has the times from the flags.
    pub(crate) async fn acquire(client: &Client, hold: &Hold) -> Result<Self, Failure> {
        if let [_, _, ..] = hold.keys[..] {
            let locks = client.lock_all(&hold.keys)?;
            return match hold.no_wait {
                true => locks.try_acquire().await?.map(Self::Locks).ok_or_else(|| busy(hold)),
                false => Ok(Self::Locks(locks.acquire().await?)),
            };
        }
        let key = hold.names().concat();
        match hold.limit {
            Some(limit) => {
                let semaphore = client.semaphore(&key, limit)?;
                match hold.no_wait {
                    true => semaphore.try_acquire().await?.map(Self::Slot).ok_or_else(|| busy(hold)),
                    false => Ok(Self::Slot(semaphore.acquire().await?)),
                }
            }
            None => {
                let lock = client.lock(&key)?;
                match hold.no_wait {
                    true => lock.try_acquire().await?.map(Self::Lock).ok_or_else(|| busy(hold)),
                    false => Ok(Self::Lock(lock.acquire().await?)),
                }
            }
        }
    }

    fn leases(&self) -> Vec<&Lease> {
        match self {
            Self::Lock(guard) => vec![guard],
            Self::Slot(permit) => vec![permit],
            Self::Locks(guard) => guard.guards().iter().map(|guard| &**guard).collect(),
        }
    }

    /// Returns the time at which the first of the leases is reported lost if no server answers any more.
    pub(crate) fn held_until(&self) -> Instant {
        let ends = self.leases().into_iter().map(Lease::held_until);
        ends.min().unwrap_or_else(Instant::now)
    }

    /// Returns whether all leases are held, as far as this client knows.
    pub(crate) fn is_held(&self) -> bool {
        self.leases().into_iter().all(Lease::is_held)
    }

    /// Returns the shortest of the TTLs.
    pub(crate) fn ttl(&self) -> std::time::Duration {
        let ttls = self.leases().into_iter().map(|lease| lease.ttl().as_duration());
        ttls.min().unwrap_or_default()
    }

    /// Resolves with the key and the reason when the first of the leases is lost.
    pub(crate) async fn lost(&self) -> (Key, LostReason) {
        match self {
            Self::Lock(guard) => (guard.key().clone(), guard.lost().await),
            Self::Slot(permit) => (permit.key().clone(), permit.lost().await),
            Self::Locks(guard) => guard.lost().await,
        }
    }

    /// Resolves with the key and the reason when a lease is lost for another reason than time. Its server may then
    /// grant the key to another holder at once.
    pub(crate) async fn taken(&self) -> (Key, LostReason) {
        let parts = self.leases().into_iter();
        let mut parts: Vec<_> = parts
            .map(|lease| (lease.key().clone(), Box::pin(lease.lost())))
            .collect();
        poll_fn(|cx| {
            let mut taken = None;
            parts.retain_mut(|(key, lost)| match lost.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(LostReason::Expired) => false,
                Poll::Ready(reason) => {
                    taken = Some((key.clone(), reason));
                    false
                }
            });
            taken.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Releases all leases and waits for the server's confirmation.
    pub(crate) async fn release(self) -> Result<(), dflockd_client::Error> {
        match self {
            Self::Lock(guard) => guard.release().await,
            Self::Slot(permit) => permit.release().await,
            Self::Locks(guard) => guard.release().await,
        }
    }

    /// Returns the description for programs.
    pub(crate) fn about(&self, client: &Client) -> Result<About, Failure> {
        let leases = self.leases();
        let health = client.health();
        let mut servers: Vec<Arc<str>> = Vec::new();
        for lease in &leases {
            let shard = client.shard_of(lease.key().as_str())?;
            let server = health.get(shard).map(|health| Arc::clone(&health.endpoint));
            servers.extend(server.filter(|server| !servers.contains(server)));
        }
        let keys: Vec<&str> = leases.iter().map(|lease| lease.key().as_str()).collect();
        let fences: Option<Vec<String>> = leases
            .iter()
            .map(|lease| lease.fence().map(|Fence(number)| number.to_string()))
            .collect();
        Ok(About {
            key: keys.join(","),
            kind: if matches!(self, Self::Slot(_)) {
                "semaphore"
            } else {
                "lock"
            },
            fence: fences.map(|fences| fences.join(",")),
            server: servers.join(","),
            ttl_s: self.ttl().as_secs(),
        })
    }
}

impl Hold {
    /// Returns the keys.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.key.iter().chain(&self.keys).map(String::as_str).collect()
    }

    /// Returns the settings that the flags set.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let times = [("acquire_timeout", self.timeout), ("lease_ttl", self.ttl)];
        let said = times.into_iter().filter_map(|(name, time)| Some((name, time?)));
        let mut said: Vec<(&str, String)> = said.map(|(name, time)| (name, setting(time))).collect();
        if self.fence {
            said.push(("fencing", "required".to_owned()));
        }
        said
    }
}

/// Writes a duration in the form of the settings.
pub(crate) fn setting(duration: std::time::Duration) -> String {
    format!("{}ns", duration.as_nanos())
}

/// Returns the failure of a `--try` at keys that are held.
fn busy(hold: &Hold) -> Failure {
    let names: Vec<String> = hold.names().iter().map(|name| format!("{name:?}")).collect();
    let is_held = match (names.as_slice(), hold.limit) {
        ([name], None) => format!("{name} is held"),
        ([name], Some(_)) => format!("all slots of {name} are held"),
        _ => format!("at least one of {} is held", names.join(", ")),
    };
    Failure::new(Exit::NOT_IN_TIME, is_held)
        .remedy("wait for it by leaving --try out, or try again later; `dflock stats` shows what is held")
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn a_try_at_held_keys_says_what_is_held() {
        for (arguments, said) in [
            ("k", r#""k" is held"#),
            ("k --limit 3", r#"all slots of "k" are held"#),
            ("--keys a,b", r#"at least one of "a", "b" is held"#),
            ("--keys a", r#""a" is held"#),
        ] {
            let matches = Hold::augment_args(clap::Command::new("run"))
                .no_binary_name(true)
                .get_matches_from(arguments.split(' '));
            let (_, what, _) = busy(&Hold::from_arg_matches(&matches).unwrap()).into_parts();
            assert_eq!(what, said, "{arguments}");
        }
    }
}
