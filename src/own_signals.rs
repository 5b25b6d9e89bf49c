//! Connections for signals without a client: described as a client is.

use crate::client::builder::ClientBuilder;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::signal::{SignalConn, SignalOptions};

impl SignalConn {
    /// Connects to a server, on default terms.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the address is none, [`Connect`](ErrorKind::Connect) and [`Auth`](ErrorKind::Auth) if it
    /// cannot be connected, [`Unsupported`](ErrorKind::Unsupported) if the server knows no signals.
    ///
    /// # Cancel safety
    ///
    /// Safe: the connection is closed.
    ///
    /// An example is with [`SignalConn`].
    pub async fn connect(server: impl Into<String>) -> Result<Self> {
        Self::open(
            ClientBuilder::default().servers([server.into()]),
            SignalOptions::default(),
        )
        .await
    }

    /// Connects to all servers that a client with this description would use, on its terms: authentication, timeouts, pauses
    /// between attempts, sharding. Each server is a shard.
    ///
    /// Of a shard with servers in reserve it uses the next at once when it loses one, and does not come back by itself; one that
    /// is of a client ([`Client::subscribe`](crate::Client::subscribe)) goes where the client's locks go.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), for the first shard that fails; [`InvalidInput`](ErrorKind::InvalidInput) for what the
    /// description or the options have wrong.
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
