//! The layers that users add, around the dispatch: of any type, behind one.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::core::Core;
use super::dispatch::{Answer, CoreRef, Dispatch};
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
pub(crate) fn wrap(layers: &[UserLayer], dispatch: Dispatch<Weak<Core>>) -> Option<ClientService> {
    if layers.is_empty() {
        return None;
    }
    let innermost = BoxCloneSyncService::new(dispatch);
    Some(layers.iter().rev().fold(innermost, |inner, layer| (layer.0)(inner)))
}

/// The dispatch, with or without layers around it. A client without any has no box to go through.
#[derive(Clone)]
pub(crate) enum Inner<C> {
    Plain(Dispatch<C>),
    Layered(ClientService),
}

impl<C> Inner<C> {
    fn poll_ready<'a>(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        C: CoreRef<'a>,
    {
        match self {
            Self::Plain(dispatch) => dispatch.poll_ready(cx),
            Self::Layered(service) => service.poll_ready(cx),
        }
    }

    fn call<'a>(&mut self, request: Request) -> Answer<'a>
    where
        C: CoreRef<'a>,
    {
        match self {
            Self::Plain(dispatch) => dispatch.call(request),
            Self::Layered(service) => service.call(request),
        }
    }
}

/// For a single call.
impl<'a> Service<Request> for Inner<&'a Arc<Core>> {
    type Response = Response;
    type Error = Error;
    type Future = Answer<'a>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_ready(self, cx)
    }

    fn call(&mut self, request: Request) -> Answer<'a> {
        Self::call(self, request)
    }
}

/// For a service that lives on.
impl Service<Request> for Inner<Weak<Core>> {
    type Response = Response;
    type Error = Error;
    type Future = Answer<'static>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_ready(self, cx)
    }

    fn call(&mut self, request: Request) -> Answer<'static> {
        Self::call(self, request)
    }
}
