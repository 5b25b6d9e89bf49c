//! A wrapper for users' layers of any type.

use std::fmt;
use std::sync::Arc;

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::request::{Request, Response};
use crate::error::{BoxError, Error};

/// The service of a client, with or without added layers. A layer that is added to a client wraps this type.
pub type ClientService = BoxCloneSyncService<Request, Response, Error>;

/// A user's layer.
#[derive(Clone)]
pub(crate) struct UserLayer(Arc<dyn Fn(ClientService) -> ClientService + Send + Sync>);

impl UserLayer {
    pub(crate) fn new<L>(layer: L) -> Self
    where
        L: Layer<ClientService> + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<BoxError>,
        <L::Service as Service<Request>>::Future: Send,
    {
        Self(Arc::new(move |inner| {
            let service = layer.layer(inner).map_err(|error| Error::of_layer(error.into()));
            BoxCloneSyncService::new(service)
        }))
    }

    pub(super) fn around(&self, inner: ClientService) -> ClientService {
        (self.0)(inner)
    }
}

impl fmt::Debug for UserLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserLayer")
    }
}
