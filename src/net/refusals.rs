//! Reports each server that begins to refuse the auth token, over connections of every purpose.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The maximum number of servers that are remembered. A cluster may name any number of new servers at its allowed
/// hosts. Beyond this number, all servers are forgotten, and their next refusals are reported again.
const REMEMBERED: usize = 1024;

type Tell = dyn Fn(usize, &Arc<str>, &Error) + Send + Sync;

/// The servers that refuse a client's token. One value serves all shards, and every attempt to connect is judged here.
pub(crate) struct Refusals {
    tell: Box<Tell>,
    /// The shards and endpoints that were reported and have not accepted the client since.
    refusing: Mutex<HashSet<(usize, Arc<str>)>>,
}

impl Refusals {
    /// Creates an empty set. `tell` is called with the shard, the endpoint and the error of each refusal.
    pub(crate) fn new(tell: impl Fn(usize, &Arc<str>, &Error) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            refusing: Mutex::default(),
        }
    }

    /// Judges a finished attempt to connect. An `Auth` error is reported, unless one was reported since the last
    /// success. This includes the error that there is no token to present.
    pub(crate) fn judge<T>(&self, shard: usize, endpoint: &Arc<str>, outcome: &Result<T>) {
        let here = (shard, Arc::clone(endpoint));
        let is_news = {
            let mut refusing = self.refusing.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Err(error) if error.kind() == ErrorKind::Auth => {
                    if refusing.len() >= REMEMBERED && !refusing.contains(&here) {
                        refusing.clear();
                    }
                    refusing.insert(here)
                }
                // The error says nothing about the token.
                Err(_) => false,
                Ok(_) => {
                    refusing.remove(&here);
                    false
                }
            }
        };
        if let (Err(error), true) = (outcome, is_news) {
            (self.tell)(shard, endpoint, error);
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("refusing", &self.refusing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusing_server_is_reported_once_until_it_accepts_the_client() {
        let told: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
        let tell = Arc::clone(&told);
        let refusals = Refusals::new(move |shard, endpoint, error| {
            assert_eq!(error.kind(), ErrorKind::Auth);
            tell.lock().unwrap().push((shard, endpoint.to_string()));
        });
        let failed = |kind| Err::<(), _>(Error::new(kind, "no"));
        let after = |shard, endpoint: &str, outcome: Result<()>| {
            refusals.judge(shard, &endpoint.into(), &outcome);
            std::mem::take(&mut *told.lock().unwrap())
        };
        assert_eq!(after(0, "a:1", failed(ErrorKind::Connect)), []);
        assert_eq!(after(0, "a:1", failed(ErrorKind::Auth)), [(0, "a:1".to_owned())]);
        assert_eq!(after(0, "a:1", failed(ErrorKind::Auth)), []);
        assert_eq!(after(0, "b:1", failed(ErrorKind::Auth)), [(0, "b:1".to_owned())]);
        assert_eq!(after(1, "a:1", failed(ErrorKind::Auth)), [(1, "a:1".to_owned())]);
        assert_eq!(after(0, "a:1", failed(ErrorKind::Connect)), []);
        assert_eq!(after(0, "a:1", failed(ErrorKind::Auth)), []);
        assert_eq!(after(0, "a:1", Ok(())), []);
        for port in 1..3 * REMEMBERED {
            after(2, &format!("c:{port}"), failed(ErrorKind::Auth));
            assert!(refusals.refusing.lock().unwrap().len() <= REMEMBERED);
        }
        assert_eq!(after(0, "a:1", failed(ErrorKind::Auth)), [(0, "a:1".to_owned())]);
    }
}
