//! The future of a response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::error::KeyedError;
use crate::error::Error;

type WithLease<T, E> = Pin<Box<dyn Future<Output = Result<T, KeyedError<E>>> + Send>>;

pin_project! {
    /// The response future of a [`Keyed`](super::Keyed).
    ///
    /// Dropping it ends the wait for the lease, or drops the future of the inner service and then releases the lease.
    pub struct KeyedFuture<F, T, E> {
        #[pin]
        state: State<F, T, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, T, E> {
        PassingThrough { #[pin] inner: F },
        // `None` after it was returned.
        Refused { error: Option<Error> },
        WithLease { future: WithLease<T, E> },
    }
}

impl<F, T, E> KeyedFuture<F, T, E> {
    /// Creates the future of a request without a key.
    pub(super) fn passing_through(inner: F) -> Self {
        Self {
            state: State::PassingThrough { inner },
        }
    }

    /// Creates the future of a request with an invalid key.
    pub(super) fn refused(error: Error) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
        }
    }

    pub(super) fn with_lease(future: impl Future<Output = Result<T, KeyedError<E>>> + Send + 'static) -> Self {
        Self {
            state: State::WithLease {
                future: Box::pin(future),
            },
        }
    }
}

impl<F, T, E> Future for KeyedFuture<F, T, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, KeyedError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::PassingThrough { inner } => inner.poll(cx).map_err(KeyedError::Inner),
            StateProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(KeyedError::Lease(error))),
                None => Poll::Pending,
            },
            StateProjection::WithLease { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, T, E> fmt::Debug for KeyedFuture<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedFuture").finish_non_exhaustive()
    }
}
