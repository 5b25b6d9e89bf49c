//! The layers that users add, around the dispatch.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tower::Service;
use tower::util::BoxCloneSyncService;

use super::core::{Core, CoreRef};
use super::dispatch::{AnswerFuture, Dispatch};
use super::request::{Request, Response};
use super::user_layer::{ClientService, UserLayer};
use crate::error::{Error, Result};

/// Wraps the dispatch in the layers; the first one is outermost. Returns `None` if there are no layers.
pub(super) fn wrap(layers: &[UserLayer], dispatch: Dispatch<Weak<Core>>) -> Option<ClientService> {
    if layers.is_empty() {
        return None;
    }
    let innermost = BoxCloneSyncService::new(dispatch);
    Some(layers.iter().rev().fold(innermost, |inner, layer| layer.around(inner)))
}

/// The dispatch, with or without users' layers around it. Without layers, a call needs no box.
#[derive(Clone)]
pub(crate) enum Inner<C> {
    Plain(Dispatch<C>),
    Layered(ClientService),
}

impl<C> Inner<C> {
    /// Returns the dispatch of a core, inside the users' layers if there are any.
    pub(super) fn of(core: &Core, reference: C) -> Self {
        match &core.layered {
            Some(layered) => Self::Layered(layered.clone()),
            None => Self::Plain(Dispatch::new(reference)),
        }
    }

    fn poll_ready<'a>(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>
    where
        C: CoreRef<'a>,
    {
        match self {
            Self::Plain(dispatch) => dispatch.poll_ready(cx),
            Self::Layered(service) => service.poll_ready(cx),
        }
    }

    #[inline(always)]
    fn call<'a>(&mut self, request: Request) -> AnswerFuture<'a, C>
    where
        C: CoreRef<'a>,
    {
        match self {
            Self::Plain(dispatch) => dispatch.call(request),
            Self::Layered(service) => AnswerFuture::Boxed {
                answer: service.call(request),
            },
        }
    }
}

/// For a single call.
impl<'a> Service<Request> for Inner<&'a Arc<Core>> {
    type Response = Response;
    type Error = Error;
    type Future = AnswerFuture<'a, &'a Arc<Core>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_ready(self, cx)
    }

    #[inline(always)]
    fn call(&mut self, request: Request) -> AnswerFuture<'a, &'a Arc<Core>> {
        Self::call(self, request)
    }
}

/// For a long-lived service.
impl Service<Request> for Inner<Weak<Core>> {
    type Response = Response;
    type Error = Error;
    type Future = AnswerFuture<'static, Weak<Core>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_ready(self, cx)
    }

    fn call(&mut self, request: Request) -> AnswerFuture<'static, Weak<Core>> {
        Self::call(self, request)
    }
}
