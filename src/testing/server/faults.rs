//! Faults on demand.

use super::{Serving, TestServer};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Status;
use crate::server::Cluster;
use crate::types::{Key, Token};

impl TestServer {
    /// Takes all leases of a key away, as a server that has lost its memory of them: their tokens hold nothing, and those that wait are granted
    /// what became free. The holders are clients that were [made here](Self::client_builder): they ask about these leases at once, whatever
    /// their renewals, and lose them as [`Rejected`](crate::LostReason::Rejected). Until then they believe in them, as they would in any
    /// case. While the server [stalls](Self::stall) they hear nothing.
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

    /// Takes one lease away, that of a [token](crate::Lease::token), where several hold slots of a semaphore. As [`lose`](Self::lose).
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
                format!("{key:?} is not held on this server, so nothing can be taken away"),
            ));
        }
        revoked.into_iter().for_each(|token| self.shards.check(token));
        Ok(())
    }

    /// Ends all connections. What was acquired over them is released, unless the server was told
    /// [otherwise](ServerBuilder::auto_release_on_disconnect), and clients lose it as [`Disconnected`](crate::LostReason::Disconnected). When
    /// this returns the server knows no connection any more; new ones succeed. Behind a [stall](Self::stall) clients notice it when that is over.
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
    /// // By itself the client connects anew.
    /// client.lock("orders/42")?.acquire().await?.release().await
    /// # }
    /// ```
    pub fn cut(&self) {
        self.control.cut();
    }

    /// From now on nothing comes through either way: the server reads no request, and no answer is read, until it is told to
    /// [resume](Self::resume). Connections stay open, and new ones are made. It is a network that has fallen silent: time goes on, so that
    /// leases expire, and both sides give up connections that are silent for too long. An answer that was on its way may still arrive.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// # let server = dflockd_client::testing::TestServer::start().await?;
    /// # let client = server.client().await?;
    /// let guard = client.lock("orders/42")?.acquire().await?;
    /// server.stall();
    /// // Its holder hears of it before the server grants the lock to another.
    /// guard.lost().await;
    /// assert!(server.is_held("orders/42"));
    /// server.resume();
    /// # Ok(())
    /// # }
    /// ```
    pub fn stall(&self) {
        self.network.gate().shut();
    }

    /// Ends a [stall](Self::stall). What was sent meanwhile arrives, also what was sent by clients that have given up.
    pub fn resume(&self) {
        self.network.gate().open();
    }

    /// Whether attempts to connect are refused, as by a machine on which no server runs. Connections that there are stay: with
    /// [`cut`](Self::cut) the server is away.
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

    /// Refuses the next attempt to connect. Called several times, it refuses so many.
    pub fn refuse_next_connection(&self) {
        self.network.refuse_next_connection();
    }

    /// Refuses the next acquire or enqueue of any key with a status, whether it would have been granted or not. Called several times, it
    /// refuses so many, in this order.
    ///
    /// Two statuses do more, as they do in real servers. [`Status::Auth`] is for the next connection, which is refused as if its secret were wrong,
    /// and no acquire is. [`Status::Draining`] closes the connection behind the answer, and what was acquired over it is released.
    ///
    /// What the client asks of the server by itself, to find out what it can do, is refused, too: with
    /// [`Fencing::Required`](crate::Fencing::Required) each new connection begins with such a request.
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

    /// Refuses the next renewal of any lease with a status. With [`Status::Error`] and [`Status::LeaseExpired`] the lease is lost, as
    /// [`Rejected`](crate::LostReason::Rejected), while the server knows it to the end of its TTL; with others the client tries again.
    pub fn refuse_next_renewal(&self, status: Status) {
        self.control.refuse_renewal(status);
    }

    /// Refuses the next release of any lease with a status. The server knows the lease to the end of its TTL, or until its connection ends.
    pub fn refuse_next_release(&self, status: Status) {
        self.control.refuse_release(status);
    }

    /// Has the next member of the cluster lead, in the order of their [addresses](Self::addresses). Members that are stopped or isolated are left
    /// out. Returns which one leads now, from 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if this is no [cluster](Self::cluster), or no other member can lead.
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
            let remedy = "no other member can lead: they are stopped or isolated, or there is none";
            Error::invalid("cluster of members", members, remedy)
        })
    }

    /// The cluster, with all that its members can be told to do; `None` for a server that stands alone.
    #[must_use]
    pub fn as_cluster(&self) -> Option<&Cluster> {
        match &self.serving {
            Serving::Alone(_) => None,
            Serving::Cluster(cluster) => Some(cluster),
        }
    }
}
