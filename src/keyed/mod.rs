//! Critical sections by the key of a request: layers for any service of tower.

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
