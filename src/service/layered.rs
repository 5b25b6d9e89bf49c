//! The layers that users add, around the dispatch: of any type, behind one.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::dispatch::{Dispatch, ResponseFuture};
use super::request::{Request, Response};
use crate::error::{BoxError, Error, Result};

/// A service of a client, whatever layers it is made of: what a layer that is added to a client wraps.
pub type ClientService = BoxCloneSyncService<Request, Response, Error>;

/// A layer of the user's.
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
}

impl fmt::Debug for UserLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserLayer")
    }
}

/// Puts layers around the dispatch, the first outermost. Nothing if there are none.
pub(crate) fn wrap(layers: &[UserLayer], dispatch: Dispatch) -> Option<ClientService> {
    if layers.is_empty() {
        return None;
    }
    let innermost = BoxCloneSyncService::new(dispatch);
    Some(layers.iter().rev().fold(innermost, |inner, layer| (layer.0)(inner)))
}

/// The dispatch, with or without layers around it. A client without any has no box to go through.
#[derive(Clone)]
pub(crate) enum Inner {
    Plain(Dispatch),
    Layered(ClientService),
}

impl Service<Request> for Inner {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Self::Plain(dispatch) => dispatch.poll_ready(cx),
            Self::Layered(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request) -> ResponseFuture {
        match self {
            Self::Plain(dispatch) => dispatch.call(request),
            Self::Layered(service) => service.call(request),
        }
    }
}
