//! The features of servers, as far as the client knows them. A server logs a warning for each command that it does not
//! know, so the client remembers what a server supports.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// After a server refused signals, the client does not ask it for signals again for this long, unless the server was
/// unreachable in the meantime.
const SIGNALS_REFUSED_FOR: Duration = Duration::from_secs(600);

/// What one server supports. `None` means that it was not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Whether it supports `ping` (releases from 1.14 on).
    pub(crate) ping: Option<bool>,
    /// Whether it remembers sessions (`stable-ref`).
    pub(crate) sessions: Option<bool>,
}

/// What each of a client's servers supports, by endpoint. One value serves all shards and all kinds of connections.
///
/// Another release may serve an endpoint later. No lease depends on the remembered values. The client asks again as
/// follows:
///
/// - A server that supported `ping` is asked again on each new connection, before anything is acquired over it, except
///   on connections for waits in a cluster. The question costs such a server nothing.
/// - A server that did *not* support `ping` is asked again only after an attempt to reach its endpoint has failed.
///   Until then, the client keeps connections alive with requests that all releases support.
#[derive(Default)]
pub(crate) struct KnownServers(Mutex<HashMap<Arc<str>, KnownServer>>);

#[derive(Default)]
struct KnownServer {
    abilities: Abilities,
    /// When it last refused a request about signals, and its error.
    refused_signals: Option<(Instant, Error)>,
}

impl KnownServers {
    /// Returns what is known of a server.
    pub(crate) fn abilities(&self, endpoint: &Arc<str>) -> Abilities {
        self.with(endpoint, |known| known.abilities)
    }

    /// Updates the known features of a server.
    pub(crate) fn learn(&self, endpoint: &Arc<str>, note: impl FnOnce(&mut Abilities)) {
        self.with(endpoint, |known| note(&mut known.abilities));
    }

    /// Notes that a server does not support signals, with its error.
    pub(crate) fn note_signals_refusal(&self, endpoint: &Arc<str>, error: Error) {
        self.with(endpoint, |known| known.refused_signals = Some((Instant::now(), error)));
    }

    /// Returns the error of a server that refused signals recently.
    pub(crate) fn signals_refusal(&self, endpoint: &Arc<str>) -> Option<Error> {
        self.with(endpoint, |known| match &known.refused_signals {
            Some((at, error)) if at.elapsed() < SIGNALS_REFUSED_FOR => Some(error.clone()),
            _ => None,
        })
    }

    /// Forgets a server that could not be reached, because another release may take its place.
    pub(crate) fn forget(&self, endpoint: &Arc<str>) {
        self.lock().remove(endpoint);
    }

    fn with<T>(&self, endpoint: &Arc<str>, work: impl FnOnce(&mut KnownServer) -> T) -> T {
        work(self.lock().entry(Arc::clone(endpoint)).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, KnownServer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KnownServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownServers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn abilities_are_kept_until_the_server_is_unreachable_and_a_refusal_of_signals_for_a_while() {
        let servers = KnownServers::default();
        let [a, b]: [Arc<str>; 2] = ["a:1".into(), "b:1".into()];
        assert_eq!(servers.abilities(&a), Abilities::default());
        let old = Abilities {
            ping: Some(false),
            sessions: None,
        };
        servers.learn(&a, |abilities| abilities.ping = Some(false));
        servers.note_signals_refusal(&a, Error::new(ErrorKind::Unsupported, "no"));
        assert_eq!(
            (servers.abilities(&a), servers.abilities(&b)),
            (old, Abilities::default())
        );
        assert!(servers.signals_refusal(&a).is_some() && servers.signals_refusal(&b).is_none());
        tokio::time::advance(SIGNALS_REFUSED_FOR).await;
        assert!(servers.signals_refusal(&a).is_none());
        assert_eq!(servers.abilities(&a), old);
        servers.note_signals_refusal(&a, Error::new(ErrorKind::Unsupported, "no"));
        servers.forget(&a);
        assert!(servers.signals_refusal(&a).is_none());
        assert_eq!(servers.abilities(&a), Abilities::default());
    }
}
