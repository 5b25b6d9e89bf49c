//! A try that is sent again under the name of its first connection.

use super::acquire::Acquire;
use super::ids::WaitKey;
use crate::protocol::StableRef;
use crate::types::Ttl;

/// A try that is sent again.
pub(crate) struct Repeat {
    pub(super) key: WaitKey,
    /// The TTL that the try asked for.
    pub(super) ttl: Option<Ttl>,
    pub(super) recipient: Recipient,
    /// The name of the connection to which the try was first written.
    pub(super) name: StableRef,
    /// How often the try was sent again.
    pub(super) times: u32,
}

/// The receiver of a grant that the repeated try finds.
pub(super) enum Recipient {
    /// The caller that tried.
    Caller(Box<Acquire>),
    /// The first caller that waits for the key.
    FirstCaller,
    /// No caller: the grant is released.
    NoCaller,
}

impl Repeat {
    pub(super) fn of_try(acquire: Box<Acquire>, name: StableRef) -> Self {
        Self {
            key: acquire.wait_key(),
            ttl: acquire.ttl,
            times: acquire.redirects,
            recipient: Recipient::Caller(acquire),
            name,
        }
    }

    pub(super) fn of_probe(key: WaitKey, ttl: Option<Ttl>, name: StableRef) -> Self {
        Self {
            key,
            ttl,
            times: 0,
            recipient: Recipient::FirstCaller,
            name,
        }
    }
}
