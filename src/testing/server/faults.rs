//! Faults on demand.

use super::{Serving, TestServer};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Status;
use crate::server::Cluster;
use crate::types::{Key, Token};

impl TestServer {
    /// Removes all leases of a key, as if the server had lost its state: their tokens become invalid, and waiters
    /// are granted the key. Clients that were [made here](Self::client_builder) check these leases at once, regardless
    /// of their renewals, and lose them with [`Rejected`](crate::LostReason::Rejected). Until then they treat the
    /// leases as held. While the server [stalls](Self::stall), they do not learn of the loss.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotHeld`] if the key is not held, and [`ErrorKind::InvalidInput`] if it is invalid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.lose("orders/42")?;
    /// assert_eq!(guard.lost().await, dflockd_client::LostReason::Rejected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn lose(&self, key: impl AsRef<str>) -> Result<()> {
        self.revoke(key.as_ref(), None)
    }

    /// Removes only the lease with this [token](crate::Lease::token), for a semaphore with several holders. Otherwise
    /// does the same as [`lose`](Self::lose).
    ///
    /// # Errors
    ///
    /// As [`lose`](Self::lose).
    pub fn lose_one(&self, key: impl AsRef<str>, token: &Token) -> Result<()> {
        self.revoke(key.as_ref(), Some(token))
    }

    fn revoke(&self, key: &str, token: Option<&Token>) -> Result<()> {
        let key = Key::new(key)?;
        let revoked = self.control.revoke(&key, token);
        if revoked.is_empty() {
            return Err(Error::new(
                ErrorKind::NotHeld,
                format!("{key:?} is not held on this server, so there is no lease to remove"),
            ));
        }
        revoked.into_iter().for_each(|token| self.shards.check(token));
        Ok(())
    }

    /// Ends all connections. Their leases are released, unless the server is [configured
    /// otherwise](crate::server::ServerBuilder::auto_release_on_disconnect), and clients lose them with
    /// [`Disconnected`](crate::LostReason::Disconnected). When this returns, the server has no connections left; new
    /// ones succeed. During a [stall](Self::stall), clients notice only when it ends.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.cut();
    /// assert!(!server.is_held("orders/42"));
    /// assert_eq!(guard.lost().await, dflockd_client::LostReason::Disconnected);
    /// // The client reconnects by itself.
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn cut(&self) {
        self.control.cut();
    }

    /// Stops the traffic in both directions, as a silent network does: the server reads no requests and clients read
    /// no answers until [`resume`](Self::resume). Connections stay open, and new ones can be opened. Time goes on, so
    /// leases expire, and both sides close connections that are silent for too long. An answer that was already in
    /// flight may still arrive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.stall();
    /// // The holder learns of the loss before the server grants the lock to another client.
    /// guard.lost().await;
    /// assert!(server.is_held("orders/42"));
    /// server.resume();
    /// # Ok(())
    /// # }
    /// ```
    pub fn stall(&self) {
        self.network.gate().shut();
    }

    /// Ends a [stall](Self::stall). Bytes that were sent in the meantime arrive, even those of clients that have given
    /// up.
    pub fn resume(&self) {
        self.network.gate().open();
    }

    /// Sets whether attempts to connect are refused, as on a machine without a server. Existing connections stay; use
    /// [`cut`](Self::cut), too, to simulate a server that is down.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// use dflockd_client::ErrorKind;
    ///
    /// server.refuse_connections(true);
    /// server.cut();
    /// let error = client.lock("orders/42")?.acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unavailable);
    /// server.refuse_connections(false);
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn refuse_connections(&self, refuses: bool) {
        self.network.refuse_connections(refuses);
    }

    /// Refuses the next attempt to connect. Several calls refuse that many attempts.
    pub fn refuse_next_connection(&self) {
        self.network.refuse_next_connection();
    }

    /// Rejects the next acquire or enqueue of any key with a status, whether or not it would have been granted.
    /// Several calls reject that many, in this order.
    ///
    /// Two statuses have other effects, as with real servers. [`Status::Auth`] rejects the next connection, as for a
    /// wrong token, instead of an acquire. [`Status::Draining`] also closes the connection after the answer and
    /// releases its leases.
    ///
    /// This also affects requests that the client makes itself to find out what the server supports: with
    /// [`Fencing::Required`](crate::Fencing::Required), a client begins with two such requests whenever it connects or
    /// reconnects to a standalone server, but not when it opens further connections.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// use dflockd_client::ErrorKind;
    /// use dflockd_client::protocol::Status;
    ///
    /// server.refuse_next(Status::MaxWaiters);
    /// let error = client.lock("orders/42")?.acquire().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::MaxWaiters);
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn refuse_next(&self, status: Status) {
        match status {
            Status::Auth => self.control.refuse_secret(),
            status => self.control.refuse_acquire(status),
        }
    }

    /// Rejects the next renewal of any lease with a status. With [`Status::Error`] and [`Status::LeaseExpired`], the
    /// client loses the lease with [`Rejected`](crate::LostReason::Rejected), although the server keeps it to the end
    /// of its TTL; with others, the client repeats the renewal.
    pub fn refuse_next_renewal(&self, status: Status) {
        self.control.refuse_renewal(status);
    }

    /// Rejects the next release of any lease with a status. The server keeps the lease to the end of its TTL, or until
    /// its connection ends.
    pub fn refuse_next_release(&self, status: Status) {
        self.control.refuse_release(status);
    }

    /// Makes the next member of the cluster the leader, in the order of their [addresses](Self::addresses), except
    /// members that are stopped or isolated. Returns the index of the new leader, from 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if this is not a [cluster](Self::cluster), or no other member can lead.
    pub fn move_leader(&self) -> Result<usize> {
        let members = self.addresses.len();
        let Serving::Cluster(cluster) = &self.serving else {
            let remedy = "it stands alone; start a cluster with TestServer::cluster";
            return Err(Error::invalid("server", &self.addresses, remedy));
        };
        let leads = cluster.leader();
        let next = leads.map_or(0, |leader| leader + 1);
        let others = (next..next + members).map(|member| member % members);
        let mut others = others.filter(|member| Some(*member) != leads);
        let moved = others.find(|member| cluster.move_leader(*member).is_ok());
        moved.ok_or_else(|| {
            let remedy = "no other member can lead: each is stopped or isolated, or the cluster has one member only";
            Error::invalid("cluster of size", members, remedy)
        })
    }

    /// Returns the cluster, with all its controls; `None` for a standalone server.
    #[must_use]
    pub fn as_cluster(&self) -> Option<&Cluster> {
        match &self.serving {
            Serving::Alone(_) => None,
            Serving::Cluster(cluster) => Some(cluster),
        }
    }
}
