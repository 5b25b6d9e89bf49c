//! Signal connections with the settings of a client, but without a client.

use crate::client::builder::ClientBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::signal::{SignalConn, SignalOptions};

impl SignalConn {
    /// Connects to a server with default settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the address is invalid, [`Connect`](ErrorKind::Connect) or
    /// [`Auth`](ErrorKind::Auth) if the connection fails, [`Unsupported`](ErrorKind::Unsupported) if the server has no
    /// signals.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connection.
    ///
    /// See [`SignalConn`] for an example.
    pub async fn connect(server: impl Into<String>) -> Result<Self> {
        Self::open(
            ClientBuilder::default().servers([server.into()]),
            SignalOptions::default(),
        )
        .await
    }

    /// Connects to all servers of these client settings, with the same authentication, timeouts, reconnect policy and
    /// sharding.
    ///
    /// If this connection loses a server of a shard with standbys, it uses the next server at once, and it does not
    /// return to the first server by itself. In contrast, a signal connection of a client
    /// ([`Client::subscribe`](crate::Client::subscribe)) uses the same server as the client's locks.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), for the first shard that fails; [`InvalidInput`](ErrorKind::InvalidInput) for
    /// invalid settings or options.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropping the future closes the connections.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), dflockd_client::Error> {
    /// use dflockd_client::{Client, Overflow, SignalConn, SignalOptions};
    ///
    /// # let server = dflockd_client::server::Server::builder().release("1.16").port(0).start().await?;
    /// # let address = server.local_addr().to_string();
    /// let options = SignalOptions::default().buffer(10_000).overflow(Overflow::DropOldest);
    /// let signals = SignalConn::open(Client::builder().servers([address]), options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(settings: ClientBuilder, options: SignalOptions) -> Result<Self> {
        let signals = Self::start(&settings.check()?, options, None)?;
        signals.connected().await?;
        Ok(signals)
    }
}
