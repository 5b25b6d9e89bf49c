//! A try that is asked again under the name of its connection.

use super::acquire::Acquire;
use super::ids::WaitKey;
use crate::protocol::StableRef;
use crate::types::Ttl;

/// A try that is asked again.
pub(crate) struct Repeat {
    pub(super) key: WaitKey,
    /// The TTL that was asked for.
    pub(super) ttl: Option<Ttl>,
    pub(super) recipient: Recipient,
    /// The name of the connection that it was written to first.
    pub(super) name: StableRef,
    /// How often it was asked again.
    pub(super) times: u32,
}

/// Who gets what is found.
pub(super) enum Recipient {
    /// The caller that tried.
    By(Box<Acquire>),
    /// The first caller that waits for the key.
    ByTheFirst,
    /// It is given back.
    ByNobody,
}

impl Repeat {
    pub(super) fn of_try(acquire: Box<Acquire>, name: StableRef) -> Self {
        Self {
            key: acquire.wait_key(),
            ttl: acquire.ttl,
            times: acquire.redirects,
            recipient: Recipient::By(acquire),
            name,
        }
    }

    pub(super) fn of_probe(key: WaitKey, ttl: Option<Ttl>, name: StableRef) -> Self {
        Self {
            key,
            ttl,
            times: 0,
            recipient: Recipient::ByTheFirst,
            name,
        }
    }
}
