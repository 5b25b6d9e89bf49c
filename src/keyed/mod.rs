//! Layers for any tower service in which each request runs under a lease on its key.

mod error;
mod future;
mod key;
mod layer;
mod section;
mod service;

pub use error::KeyedError;
pub use future::KeyedFuture;
pub use key::RequestKey;
pub use layer::{KeyedLayer, LockLayer, SemaphoreLayer};
pub use service::Keyed;
