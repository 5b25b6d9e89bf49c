//! A reference that does not keep its client alive.

use std::fmt;
use std::sync::{Arc, Weak};

use super::Client;
use crate::service::Core;

/// A reference to a client that does not keep it alive, for objects that the client itself owns: a
/// [callback](crate::ClientBuilder::on_lost) or a [layer](crate::ClientBuilder::layer). [`Client::downgrade`] creates
/// it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use std::sync::{Arc, OnceLock};
///
/// use dflockd_client::{Client, WeakClient};
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// let itself: Arc<OnceLock<WeakClient>> = Arc::default();
/// let seen = Arc::clone(&itself);
/// let builder = Client::builder().servers([address]).on_lost(move |lost| {
///     let client = seen.get().and_then(WeakClient::upgrade);
///     let connected = client.is_some_and(|client| client.health()[lost.shard].is_connected());
///     eprintln!("{} is lost: {} (connected: {connected})", lost.key, lost.reason);
/// });
/// let client = builder.connect().await?;
/// let _ = itself.set(client.downgrade());
///
/// let weak = client.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(client);
/// assert!(weak.upgrade().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct WeakClient(Weak<Core>);

impl WeakClient {
    pub(super) fn of(client: &Client) -> Self {
        Self(Arc::downgrade(client.core()))
    }

    /// Returns the client while a clone, handle or lease keeps it alive, otherwise `None`.
    #[must_use]
    pub fn upgrade(&self) -> Option<Client> {
        self.0.upgrade().map(Client::of)
    }
}

impl fmt::Debug for WeakClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakClient")
    }
}
