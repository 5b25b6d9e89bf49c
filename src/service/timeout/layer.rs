//! The layer.

use std::fmt;
use std::time::Duration;

use tower::Layer;

use super::Timeout;

/// Gives every request an end: its own wait plus the request timeout.
///
/// A client has one already, outside of the layers that are added to it; its request timeout is
/// [`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout). One that is added ends a request earlier.
///
/// What is over ends with an error of kind [`Timeout`](crate::ErrorKind::Timeout), or
/// [`Unavailable`](crate::ErrorKind::Unavailable) where it is known that it is a server that did not answer. Its
/// [`budget`](crate::Error::budget) says which time ran out. The inner future is dropped: what is granted to it meanwhile is given
/// back.
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
///     // A quick answer or none.
///     .layer(TimeoutLayer::new(Duration::from_millis(500)))
///     .connect()
///     .await?;
/// # client.lock("orders/42")?.acquire().await?.release().await
/// # }
/// ```
#[derive(Clone)]
pub struct TimeoutLayer<X = ()> {
    request_timeout: Duration,
    /// Who may know more of what was not answered.
    explain: X,
    /// The inner service ends the waits of requests by itself, always.
    waits_end: bool,
}

impl TimeoutLayer {
    /// Allows `request_timeout` on top of what a request itself may wait.
    #[must_use]
    pub fn new(request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            explain: (),
            waits_end: false,
        }
    }

    /// The same, with somebody who may know more.
    pub(crate) fn explained_by<X>(self, explain: X) -> TimeoutLayer<X> {
        TimeoutLayer {
            request_timeout: self.request_timeout,
            explain,
            waits_end: self.waits_end,
        }
    }
}

impl<X> TimeoutLayer<X> {
    /// The same, for a service that ends each request that waits by itself, when that wait is over: such a request needs no
    /// second alarm.
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
