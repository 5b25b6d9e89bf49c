//! One shard's signal connection, as its users see it.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, ActorRuntime};
use tokio::sync::{Semaphore, oneshot, watch};

use super::actor::{LinkArguments, closed};
use super::buffer::Buffer;
use super::family::{Family, HealthWatch, OpenLink, is_closed, until_closed};
use super::message::{LinkMessage, Subscription};
use super::shell::LinkActor;
use crate::config::Config;
use crate::ending::runtime_ended;
use crate::error::{Error, ErrorKind, Result};
use crate::net::connect::Purpose;
use crate::net::dial::Dial;
use crate::net::failover::Policy;
use crate::net::health::{ConnectionState, ShardHealth};
use crate::net::metrics::LaneMetrics;
use crate::protocol::{Channel, Payload};
use crate::shard::ask::Ask;
use crate::telemetry::sink::ShardSink;

/// A connection for signals to one shard. Dropping it closes the connection.
pub(crate) struct Link {
    actor: ActorRef<LinkMessage>,
    pub(crate) health: HealthWatch,
    /// Limits the number of requests under way.
    room: Arc<Semaphore>,
}

impl Link {
    /// Starts a link, which connects in the background. Needs a tokio runtime.
    ///
    /// `family` belongs to the client of this link, if there is one. In that case the link runs on the client's
    /// runtime, is closed with the client, and follows its shard if that has standby servers.
    pub(crate) fn start(
        config: &Config,
        index: usize,
        heartbeat: Duration,
        buffer: Arc<Buffer>,
        family: Option<&Family>,
    ) -> Result<Self> {
        let runtime = match family {
            Some(family) => {
                family.check()?;
                family.runtime.clone()
            }
            None => crate::runtime::current("a signal connection", config.shard.connection.opens_sockets())?,
        };
        let plan = config
            .shards
            .get(index)
            .ok_or_else(|| Error::invalid("shard index", index, "there is no such shard"))?;
        let shard = family.and_then(|family| family.shards.get(index).cloned());
        let shard = shard.filter(|_| plan.policy == Policy::Standby);
        let at = shard.as_ref().map(|shard| Arc::clone(&shard.borrow().endpoint));
        let first = plan.endpoint_at(at.as_deref());
        let sink = ShardSink::new(config.sink.clone(), index);
        let mut connect = config.shard.reach(index, first, Purpose::Signals);
        connect.settings = Arc::new(connect.settings.with_keepalive(heartbeat));
        let dial = Dial {
            connect,
            metrics: LaneMetrics::new(&sink),
        };
        let health = watch::Sender::new(ShardHealth::connecting(index, first));
        let health_changes = health.subscribe();
        let arguments = LinkArguments {
            index,
            plan: plan.clone(),
            shard,
            dial,
            reconnect: config.shard.machine.reconnect.clone(),
            fail_fast: config.shard.machine.fail_fast,
            buffer,
            health,
            sink,
            events: config.events.of_shard(index),
            client: config.name.clone(),
        };
        let _entered = runtime.enter();
        let (actor, _) = ActorRuntime::spawn_instant(None, LinkActor, arguments).map_err(|error| {
            Error::new(
                ErrorKind::ShardGone,
                format!("the actor of signals could not be started: {error}"),
            )
        })?;
        let link = Self {
            actor,
            health: health_changes,
            room: Arc::new(Semaphore::new(config.shard.connection.max_in_flight)),
        };
        if let Some(family) = family {
            family.add(OpenLink {
                actor: link.actor.clone(),
                health: link.health.clone(),
            })?;
        }
        Ok(link)
    }

    pub(super) async fn listen(&self, subscription: Subscription) -> Result<()> {
        self.ask(|ask| LinkMessage::Listen(subscription, ask)).await
    }

    pub(super) async fn unlisten(&self, subscription: Subscription) -> Result<()> {
        self.ask(|ask| LinkMessage::Unlisten(subscription, ask)).await
    }

    pub(crate) async fn emit(&self, channel: Channel, payload: Payload) -> Result<u64> {
        self.ask(|ask| LinkMessage::Emit(channel, payload, ask)).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Ask<T>) -> LinkMessage) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // The semaphore is never closed.
        let _room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| self.gone())?;
        self.actor
            .send_message(message(Ask { reply, _room }))
            .map_err(|_| self.gone())?;
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(self.gone())),
            // A message to an actor that is ending may stay in its mailbox.
            () = until_closed(self.health.clone()) => Err(self.gone()),
        }
    }

    /// Waits until the link is connected, or an attempt has failed.
    pub(super) async fn connected(&self) -> Result<()> {
        let mut health = self.health.clone();
        let settled = health
            .wait_for(|health| !matches!(health.state, ConnectionState::Connecting))
            .await
            .map_err(|_| self.gone())?;
        match settled.last_error().or(settled.closed_because()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Closes the link, and waits until it is closed.
    pub(super) async fn close(&self) {
        drop(self.actor.send_message(LinkMessage::Close(closed())));
        until_closed(self.health.clone()).await;
    }

    /// Returns whether the link is closed, for any reason.
    pub(crate) fn is_closed(&self) -> bool {
        is_closed(&self.health)
    }

    /// Returns the error of a request whose answer will not come.
    fn gone(&self) -> Error {
        let is_closed = self.is_closed();
        let health = self.health.borrow();
        match health.closed_because() {
            Some(why) if why.is_fatal() => why.clone(),
            // The reason for the close was temporary, but this connection is not opened again.
            Some(why) => Error::new(
                ErrorKind::Shutdown,
                format!("this signal connection is closed: {}", why.message()),
            ),
            // The actor was never started.
            None if is_closed => runtime_ended("signal connection"),
            None => Error::new(
                ErrorKind::Disconnected,
                "the connection for signals was lost before an answer came",
            )
            .at(&health.endpoint),
        }
    }
}

/// Closes the link. This only sends a message: it works anywhere, never blocks and never panics.
impl Drop for Link {
    fn drop(&mut self) {
        drop(self.actor.send_message(LinkMessage::Close(closed())));
    }
}
