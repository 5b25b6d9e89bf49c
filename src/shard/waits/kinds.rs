//! The kinds of waits, and the reasons why a wait has no connection.

use crate::net::lane::Caller;
use crate::shard::ids::{Arrival, WaitKey};
use crate::shard::progress::WaitsFor;

/// A wait that records what it waits for.
pub(crate) trait Waiter: Caller {
    /// Notes what the wait waits for from now on.
    fn waits_for(&self, what: WaitsFor);
}

/// The use of a connection.
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
    /// No attempt to open one has succeeded so far.
    NotEstablished,
    /// All connections that the limits allow are in use.
    InUse,
    /// The server accepts no more connections.
    Full,
}

/// The order in which keys get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// One of its callers holds other leases of this client.
    Holding,
    /// It has no server wait yet, or a caller wants a ticket.
    First,
    /// It has a server wait, or this client holds the key itself.
    Late,
}

/// The wait that starts over a connection.
#[derive(Debug)]
pub(crate) enum Start<W> {
    /// A server wait, with the terms of [`last_covered`](super::Waits::last_covered).
    Wait(WaitKey),
    /// A ticket.
    Ticket(WaitKey, Arrival, W),
}

/// A wait that belongs to a session and starts again in it.
#[derive(Debug)]
pub(crate) struct Bound<W> {
    pub(crate) key: WaitKey,
    pub(crate) arrival: Arrival,
    pub(crate) wait: W,
    pub(crate) occupant: Occupant,
}
