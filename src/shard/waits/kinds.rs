//! What waits, what it lacks, and what starts over a connection.

use crate::net::lane::Caller;
use crate::shard::ids::{Arrival, WaitKey};
use crate::shard::progress::WaitsFor;

/// Something that waits, and that can be told for what.
pub(crate) trait Waiter: Caller {
    /// Notes what it waits for from now on.
    fn waits_for(&self, what: WaitsFor);
}

/// What occupies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// A server wait.
    Wait,
    /// The queue position of one ticket.
    Ticket,
}

/// Why a wait has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// None could be established for it so far.
    NotEstablished,
    /// As many as there may be are in use.
    InUse,
    /// The server takes no more.
    Full,
}

/// How soon a key gets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// One of its callers holds other leases of this client.
    Holding,
    /// It has no server wait yet, or a ticket is wanted.
    First,
    /// It has one, or this client holds it itself.
    Late,
}

/// What starts over a connection.
#[derive(Debug)]
pub(crate) enum Start<W> {
    /// A server wait, on the terms of [`last_covered`](Waits::last_covered).
    Wait(WaitKey),
    /// A ticket.
    Ticket(WaitKey, Arrival, W),
}

/// Something that was bound to a session, and starts again in it.
#[derive(Debug)]
pub(crate) struct Bound<W> {
    pub(crate) key: WaitKey,
    pub(crate) arrival: Arrival,
    pub(crate) wait: W,
    pub(crate) occupant: Occupant,
}
