//! Catches panics, so that a panic ends only the work in which it happened.
//!
//! This crate calls user code: recorders of metrics, verifiers of certificates, reconnect policies, connectors and
//! their streams, callbacks for events, listeners, subscribers of the log. A panic there, or in this crate, ends the
//! piece of work in which it happened. The code that catches the panic must drop or repair the state that this work was
//! changing. Nothing here checks that.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use crate::escape::Escaped;

/// A caught panic. It shows the panic's message with invisible characters escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panic(Box<str>);

impl Panic {
    fn of(payload: Box<dyn Any + Send>) -> Self {
        let payload = match payload.downcast::<String>() {
            Ok(said) => return Self(said.into_boxed_str()),
            Err(other) => other,
        };
        match payload.downcast::<&'static str>() {
            Ok(said) => Self((*said).into()),
            Err(other) => {
                // Dropping the payload may panic.
                std::mem::forget(other);
                Self("without a message".into())
            }
        }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

/// Runs the work and converts a panic into an error.
///
/// This also works in a destructor during a panic: the caught second panic does not abort the process.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic::of)
}

/// Awaits a future and converts a panic into an error, including a panic of the future's destructor after it is ready.
///
/// # Cancel safety
///
/// As cancel-safe as the given future. If it is dropped before it is ready, a panic of its destructor is not caught.
pub(crate) async fn catch_async<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = Box::pin(future);
    let output = poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await;
    let dropped = catch(|| drop(future));
    let output = output?;
    dropped.map(|()| output)
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    #[tokio::test]
    async fn the_message_of_a_panic_is_returned_for_panics_at_once_and_later() {
        assert_eq!(catch(|| 1), Ok(1));
        let number = 7;
        assert_eq!(catch(|| panic!("as it is")).unwrap_err().to_string(), "as it is");
        assert_eq!(catch(|| panic!("number {number}")).unwrap_err().to_string(), "number 7");
        assert_eq!(catch(|| panic!("\x1b[2J")).unwrap_err().to_string(), "\\u{1b}[2J");
        assert_eq!(catch(|| panic_any(7)).unwrap_err().to_string(), "without a message");
        assert_eq!(catch_async(async { 1 }).await, Ok(1));
        let later = async {
            tokio::task::yield_now().await;
            panic!("later")
        };
        assert_eq!(catch_async(later).await.unwrap_err().to_string(), "later");
    }

    #[tokio::test]
    async fn the_panic_of_a_futures_destructor_is_caught() {
        struct Bug;
        impl Drop for Bug {
            fn drop(&mut self) {
                panic!("at the end");
            }
        }
        let of = |first: Option<&'static str>| {
            let bug = Bug;
            poll_fn(move |_| {
                let _kept = &bug;
                match first {
                    Some(said) => panic!("{said}"),
                    None => Poll::Ready(1),
                }
            })
        };
        assert_eq!(catch_async(of(None)).await.unwrap_err().to_string(), "at the end");
        assert_eq!(catch_async(of(Some("first"))).await.unwrap_err().to_string(), "first");
    }

    #[test]
    fn a_destructor_that_catches_its_panic_is_safe_while_another_unwinds() {
        struct Careful;
        impl Drop for Careful {
            fn drop(&mut self) {
                assert!(catch(|| panic!("the second")).is_err());
            }
        }
        let first = catch(|| {
            let _careful = Careful;
            panic!("the first");
        });
        assert_eq!(first.unwrap_err().to_string(), "the first");
    }
}
