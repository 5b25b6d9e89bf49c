//! The timeout layer.

use std::fmt;
use std::time::Duration;

use tower::Layer;

use super::Timeout;

/// Limits the time of every request: its own wait plus the request timeout.
///
/// A client already has such a layer, outside the layers that are added to it; its request timeout is
/// [`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout). A further layer can end requests earlier.
///
/// A request whose time is over ends with an error of kind [`Timeout`](crate::ErrorKind::Timeout), or of kind
/// [`Unavailable`](crate::ErrorKind::Unavailable) if it is known that a server did not answer. The error's
/// [`budget`](crate::Error::budget) is the limit that was exceeded. The layer drops the inner future, and the client
/// releases a grant that comes meanwhile.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dflockd_client::Error> {
/// use std::time::Duration;
///
/// use dflockd_client::{Client, TimeoutLayer};
///
/// # let server = dflockd_client::server::Server::builder().port(0).start().await?;
/// # let address = server.local_addr().to_string();
/// let client = Client::builder()
///     .servers([address])
///     // Allows each request 500 ms in addition to its own wait.
///     .layer(TimeoutLayer::new(Duration::from_millis(500)))
///     .connect()
///     .await?;
/// # client.lock("orders/42")?.acquire().await?.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct TimeoutLayer<X = ()> {
    request_timeout: Duration,
    /// Can explain why a request got no answer.
    explain: X,
    /// Whether the inner service always ends the waits of requests by itself.
    waits_end: bool,
}

impl TimeoutLayer {
    /// Creates a layer that allows `request_timeout` in addition to a request's own wait.
    #[must_use]
    pub fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            explain: (),
            waits_end: false,
        }
    }

    /// Adds a value that can explain why a request got no answer.
    pub(crate) fn explained_by<X>(self, explain: X) -> TimeoutLayer<X> {
        TimeoutLayer {
            request_timeout: self.request_timeout,
            explain,
            waits_end: self.waits_end,
        }
    }
}

impl<X> TimeoutLayer<X> {
    /// Sets whether the inner service ends each request by itself when the request's own wait is over. If so, a request
    /// with a wait needs no second timer.
    pub(crate) fn where_waits_end(mut self, waits_end: bool) -> Self {
        self.waits_end = waits_end;
        self
    }
}

impl<S, X: Clone> Layer<S> for TimeoutLayer<X> {
    type Service = Timeout<S, X>;

    fn layer(&self, inner: S) -> Timeout<S, X> {
        Timeout {
            inner,
            request_timeout: self.request_timeout,
            explain: self.explain.clone(),
            waits_end: self.waits_end,
        }
    }
}

impl<X> fmt::Debug for TimeoutLayer<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutLayer")
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}
