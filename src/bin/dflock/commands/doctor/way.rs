//! The way to one server, and connections on it.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use dflockd_client::protocol::AuthToken;
use dflockd_client::protocol::functions::{Wire, auth};
use dflockd_client::{Endpoint, Error};
use tokio::time::timeout;

use super::secure::Secure;
use super::stream::{Stream, connect, connect_unix};
use crate::exit::Exit;
use crate::failure::Failure;

/// A connection, over which one request is made at a time.
pub(super) type Connection = Wire<Box<dyn Stream>>;

/// How one server is reached, as far as the checks have found out.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    /// The address that answered.
    pub(super) address: Option<SocketAddr>,
    pub(super) secure: Secure,
    pub(super) token: Option<AuthToken>,
    /// How long one check may take.
    pub(super) limit: Duration,
}

impl Way {
    /// Opens another connection, after the first one has succeeded.
    ///
    /// Dropping the future closes the connection.
    pub(super) async fn open(&self) -> Result<Connection, Failure> {
        let opened = timeout(self.limit, async {
            let stream = self.reach().await?;
            let stream = self.secure.handshake(stream, &self.endpoint).await?.stream;
            let mut connection = Wire::new(stream);
            if let Some(token) = &self.token {
                auth(&mut connection, token.clone()).await?;
            }
            Ok::<_, Failure>(connection)
        });
        opened.await.unwrap_or_else(|_| Err(silent(self.limit)))
    }

    /// Returns whether others could read the bytes on their way: the server is on another machine, and nothing is
    /// encrypted.
    pub(super) fn is_exposed(&self) -> bool {
        let is_remote = self
            .address
            .is_some_and(|address| !address.ip().to_canonical().is_loopback());
        is_remote && !self.secure.is_encrypted()
    }

    async fn reach(&self) -> Result<Box<dyn Stream>, Failure> {
        match (self.address, self.endpoint.unix_path()) {
            (Some(address), _) => connect(address).await.map_err(|error| away(&address, &error)),
            (None, Some(path)) => connect_unix(path).await.map_err(|error| away(&path.display(), &error)),
            (None, None) => Err(Failure::new(Exit::SOFTWARE, "no address is known")),
        }
    }
}

/// Returns the failure for a server that cannot be connected to.
pub(super) fn away(place: &dyn std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::new(Exit::SERVER_AWAY, format!("{place}: {error}")).remedy(
        "see that the server runs, listens at this address and is not shutting down, and that no firewall blocks \
         the connection",
    )
}

/// Returns the failure for a server that did not answer in time.
pub(super) fn silent(limit: Duration) -> Failure {
    Failure::new(Exit::SERVER_AWAY, format!("no answer within {limit:?}")).remedy(
        "see whether the server is stopped or overloaded, whether this is its port, and whether it expects TLS or not; \
         --timeout waits longer",
    )
}

/// Returns the failure for a connection that ended before the server had answered anything over it.
pub(super) fn hung_up(error: &Error) -> Failure {
    let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
    Failure::new(
        Exit::SERVER_AWAY,
        format!("the server closed the connection without an answer{cause}"),
    )
    .remedy("see whether it has reached its --max-connections, is shutting down, or expects TLS or not")
}
