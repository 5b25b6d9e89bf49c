//! The handles: locks, semaphores and elections, and the guards and tickets that they return.

pub(crate) mod election;
pub(crate) mod guard;
pub(crate) mod lock;
mod many;
pub(crate) mod multi_guard;
pub(crate) mod multi_lock;
pub(crate) mod semaphore;
pub(crate) mod terms;
pub(crate) mod ticket;
