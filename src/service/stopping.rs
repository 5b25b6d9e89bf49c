//! Stops work whose lease is lost.

use super::core::Core;
use super::held::Lease;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::lease::state::LostReason;
use crate::types::Key;

impl Lease {
    /// Runs a future for as long as the lease is held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before the future completed. The future is dropped then.
    ///
    /// # Cancel safety
    ///
    /// As cancel-safe as the given future. The lease stays held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
    /// # let client = dflockd_client::Client::builder().servers([server.local_addr().to_string()]).build()?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// let answer = guard.run(async { 6 * 7 }).await?;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            reason = self.wait_until_lost() => {
                log_stopped(self, self.key(), reason);
                Err(self.lost_because(reason))
            }
            output = future => Ok(output),
        }
    }
}

/// Logs, in the span of the work, that the work was stopped because a lease was lost. The other log lines about lost
/// leases are not in a holder's span.
pub(crate) fn log_stopped(lease: &Lease, key: &Key, reason: LostReason) {
    let origin = lease.client();
    let client = origin
        .downcast_ref::<Core>()
        .and_then(|core| core.config.name.as_deref());
    tracing::info!(client, %key, reason = reason.as_str(), "stopped: the lease was lost");
}
