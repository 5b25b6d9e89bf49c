//! Finds out whether a server makes fences, for clients that require them.

use super::connect::ConnectOptions;
use super::fencing::{FencesShown, makes_none};
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Call;
use crate::protocol::functions::Wire;
use crate::types::{Grant, Key, Kind, Limit, Target, Ttl, WaitSecs};

/// One key for all clients, so that it counts only once against the server's limit on keys.
const KEY: &str = "dflockd-client-fences";

/// More slots than there are clients that ask at the same time, so that no client waits for another. All clients must
/// use the same number. It is below the maximum of cluster builds (1,048,576).
const SLOTS: u32 = 1_000_000;

/// How long a slot stays taken if it is not released and the server does not notice the end of the connection.
const TTL_SECS: u64 = 5;

impl ConnectOptions {
    /// Takes two slots of a semaphore, compares their tokens, and releases them. Nothing else has been acquired over
    /// the connection.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the server makes no fences, and `Connect` if that cannot be found out. `NotLeader`, `Protocol`
    /// and `Draining` are returned as they are.
    pub(super) async fn find_fences(&self, wire: &mut Wire<Stream>) -> Result<FencesShown> {
        let first = self.take_slot(wire).await?;
        let second = self.take_slot(wire).await?;
        for grant in [&first, &second] {
            let release = Call::release(Kind::Semaphore, Key::new(KEY)?, grant.token);
            match self.ask(wire, release).await {
                // The round trips took longer than the TTL.
                Err(error) if error.kind() == ErrorKind::NotHeld => {}
                other => other?,
            }
        }
        match FencesShown::by_grants(&first, &second) {
            FencesShown::Nothing => Err(makes_none()),
            shown => Ok(shown),
        }
    }

    async fn take_slot(&self, wire: &mut Wire<Stream>) -> Result<Grant> {
        let target = Target::Semaphore(Limit::new(SLOTS)?);
        let take = Call::acquire(target, Key::new(KEY)?, WaitSecs::TRY, Ttl::from_secs(TTL_SECS));
        self.ask(wire, take).await.map_err(|error| match error.kind() {
            // The server does not support semaphores, so it is older than every release that makes fences.
            ErrorKind::Refused => makes_none().caused_by(error),
            ErrorKind::Connect | ErrorKind::NotLeader | ErrorKind::Protocol | ErrorKind::Draining => error,
            // No program can act on the reason, so it appears only in the message.
            _ => Error::new(
                ErrorKind::Connect,
                format!(
                    "cannot find out whether the server makes fences, and fencing is Required: {}",
                    error.message()
                ),
            ),
        })
    }
}
