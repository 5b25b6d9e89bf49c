//! The router: it owns the topology, supervises the shards' actors, and ends the client.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::restarts::Restarts;
use super::shard::{Run, ShardActor, ShardArguments};
use super::topology::{ShardPlace, Topology};
use crate::config::Config;
use crate::ending::{Ending, runtime_ended, shut_down};
use crate::error::{Error, ErrorKind, Result};
use crate::events::board::HealthBoard;
use crate::human::human;
use crate::net::backoff::ReconnectPolicy;
use crate::net::health::ShardHealth;
use crate::shard::effect::Handover;
use crate::shard::input::{Input, Mailbox, Shutdown};
use crate::telemetry::actor_span::ActorSpan;
use crate::telemetry::client_name::ClientName;
use crate::telemetry::sink::ShardSink;
use crate::unwind::catch;

/// A message for the router.
pub(crate) enum RouterMessage {
    /// The last client handle is gone, or the client is shut down: make every shard release its leases and end.
    Close { until: Instant },
    /// The pause before a new actor is over.
    Restart { shard: usize },
}

/// The behaviour of the actor; its state is [`Router`].
struct RouterActor;

/// The state of the router.
struct Router {
    topology: Arc<Topology>,
    shards: Vec<Supervised>,
    ending: Ending,
    client: ClientName,
    span: ActorSpan,
}

/// A shard, as its supervisor sees it.
struct Supervised {
    arguments: ShardArguments,
    restarts: Restarts,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its actor has been alive since this instant.
    Running(Instant),
    /// Its actor died; another one starts after a pause.
    Pausing,
    /// It was shut down.
    Ended,
}

/// The client's access to its router. Dropping this value closes the client. The drop only sends a message, so it works
/// outside of a runtime and during a panic.
pub(crate) struct RouterRef(ActorRef<RouterMessage>);

/// How long the shards may take for the releases under way after the last handle of a client is gone.
const LAST_RELEASES: Duration = Duration::from_secs(5);

impl RouterRef {
    /// Makes every shard end, including those whose actors have died.
    pub(crate) fn close(&self, until: Instant) {
        // If the router is gone, the shards are gone too.
        drop(self.0.send_message(RouterMessage::Close { until }));
    }
}

impl Drop for RouterRef {
    fn drop(&mut self) {
        self.close(Instant::now() + LAST_RELEASES);
    }
}

/// Starts the router and one actor per shard on the current runtime. Does not wait for any connection.
pub(crate) fn start(config: &Config, ending: &Ending) -> Result<(RouterRef, Arc<Topology>)> {
    let arguments: Vec<ShardArguments> = config
        .shards
        .iter()
        .enumerate()
        .map(|(index, plan)| ShardArguments {
            index,
            plan: plan.clone(),
            config: config.shard.clone(),
            health: HealthBoard::new(
                ShardHealth::connecting(index, plan.first()),
                config.events.of_shard(index),
            ),
            events: config.events.of_shard(index),
            client: config.name.clone(),
            sink: ShardSink::new(config.sink.clone(), index),
            handover: watch::Sender::new(Handover::default()),
            ending: ending.clone(),
        })
        .collect();
    // The router's mailbox must exist before the shards are spawned, because it receives the reports of their deaths.
    // The shards must exist before the router starts, because its state contains them.
    let (hand_over, taken_over) = tokio::sync::oneshot::channel();
    let (router, _) = ActorRuntime::spawn_instant(None, RouterActor, taken_over).map_err(not_started)?;
    let router = RouterRef(router);
    let mut shards = Vec::with_capacity(arguments.len());
    for shard in &arguments {
        let actor = start_shard(shard, &router.0).map_err(not_started)?;
        shards.push(ShardPlace::new(
            shard.index,
            actor,
            shard.health.subscribe(),
            config.shard.connection.max_in_flight,
            config.shard.max_waiters,
        ));
    }
    let topology = Arc::new(Topology {
        placement: config.placement.clone(),
        shards,
    });
    let supervised = |arguments| Supervised {
        arguments,
        restarts: Restarts::new(ReconnectPolicy::default()),
        stage: Stage::Running(Instant::now()),
    };
    let state = Router {
        topology: Arc::clone(&topology),
        shards: arguments.into_iter().map(supervised).collect(),
        ending: ending.clone(),
        client: config.name.clone(),
        span: ActorSpan::none(),
    };
    drop(hand_over.send(state));
    Ok((router, topology))
}

/// Starts a shard's actor and makes it run.
fn start_shard(
    arguments: &ShardArguments,
    router: &ActorRef<RouterMessage>,
) -> std::result::Result<(ActorRef<Run>, Mailbox), ractor::SpawnErr> {
    let (mailbox, inputs) = Mailbox::new();
    let parts = (arguments.clone(), mailbox.clone(), inputs);
    let (actor, _) = ActorRuntime::spawn_linked_instant(None, ShardActor, parts, router.get_cell())?;
    // If the actor has already ended, its supervision tells the router.
    drop(actor.send_message(Run));
    Ok((actor, mailbox))
}

fn not_started(error: ractor::SpawnErr) -> Error {
    Error::new(
        ErrorKind::ShardGone,
        format!("the actors could not be started: {error}"),
    )
}

impl Actor for RouterActor {
    type Msg = RouterMessage;
    type State = Router;
    type Arguments = tokio::sync::oneshot::Receiver<Router>;

    async fn pre_start(
        &self,
        _: ActorRef<RouterMessage>,
        state: tokio::sync::oneshot::Receiver<Router>,
    ) -> Result<Router, ActorProcessingErr> {
        Ok(state.await?)
    }

    async fn post_start(&self, _: ActorRef<RouterMessage>, router: &mut Router) -> Result<(), ActorProcessingErr> {
        router.span = ActorSpan::current(&router.client);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<RouterMessage>,
        message: RouterMessage,
        router: &mut Router,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RouterMessage::Close { until } => router.close(until),
            RouterMessage::Restart { shard } => router.restart(&myself, shard),
        }
        router.end_if_done(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RouterMessage>,
        event: SupervisionEvent,
        router: &mut Router,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                router.shard_is_gone(&myself, who.get_id(), &error.to_string())
            }
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                router.shard_is_gone(&myself, who.get_id(), reason.as_deref().unwrap_or("it ended"));
            }
            _ => {}
        }
        router.end_if_done(&myself);
        Ok(())
    }
}

impl Router {
    /// Handles the end of a shard's actor, which died or was shut down. Its connections and leases are gone with it,
    /// and its callers and holders were told. The new actor starts without them.
    fn shard_is_gone(&mut self, myself: &ActorRef<RouterMessage>, who: ActorId, error: &str) {
        let Some(index) = self.topology.shards.iter().position(|place| place.is_actor(who)) else {
            return;
        };
        let Some(shard) = self.shards.get_mut(index) else {
            return;
        };
        let Stage::Running(since) = shard.stage else { return };
        if self.ending.cause().is_some() {
            return self.ended(index);
        }
        let pause = shard.restarts.died_after(since.elapsed());
        shard.stage = Stage::Pausing;
        let endpoint = shard.arguments.health.endpoint();
        // The log subscriber is a user's code. The router restarts the shard even if that code panics.
        drop(catch(|| {
            self.span.outside(|| {
                tracing::error!(shard = index, %endpoint, error, restart_in = %human(pause), "a shard's actor died: another takes its place");
            });
        }));
        match pause.is_zero() {
            true => self.restart(myself, index),
            false => drop(myself.send_after(pause, move || RouterMessage::Restart { shard: index })),
        }
    }

    fn restart(&mut self, myself: &ActorRef<RouterMessage>, index: usize) {
        let (Some(shard), Some(place)) = (self.shards.get_mut(index), self.topology.shards.get(index)) else {
            return;
        };
        if shard.stage != Stage::Pausing {
            return;
        }
        if self.ending.cause().is_some() {
            return self.ended(index);
        }
        match start_shard(&shard.arguments, myself) {
            Ok(actor) => {
                shard.stage = Stage::Running(Instant::now());
                place.replace(actor);
            }
            // Starting an actor fails only if its name is taken, and this one has no name.
            Err(_) => drop(myself.send_after(shard.restarts.died_after(Duration::ZERO), move || {
                RouterMessage::Restart { shard: index }
            })),
        }
    }

    /// Makes all shards end. Shards that are already closing ignore this.
    fn close(&mut self, until: Instant) {
        self.ending.begin(shut_down());
        for index in 0..self.shards.len() {
            if self
                .shards
                .get(index)
                .is_some_and(|shard| shard.stage == Stage::Pausing)
            {
                self.ended(index);
            }
        }
        for place in &self.topology.shards {
            // If the shard's actor has just died, it does not get the message, and the router does not start another
            // one.
            drop(place.tell(Input::Shutdown(Shutdown { until, reply: None })));
        }
    }

    /// Notes that a shard has no actor, and will not get another.
    fn ended(&mut self, index: usize) {
        let Some(shard) = self.shards.get_mut(index) else {
            return;
        };
        shard.stage = Stage::Ended;
        if let Some(cause) = self.ending.cause() {
            shard.arguments.health.close(cause);
        }
    }

    fn end_if_done(&self, myself: &ActorRef<RouterMessage>) {
        if self.shards.iter().all(|shard| shard.stage == Stage::Ended) {
            myself.stop(None);
        }
    }
}

/// Without a router, no shard is restarted, so all remaining shards end. If the router was not told to end, its runtime
/// has ended.
impl Drop for Router {
    fn drop(&mut self) {
        self.ending.begin(runtime_ended("client"));
        for index in 0..self.shards.len() {
            self.ended(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Client;
    use crate::lease::state::LostReason;
    use crate::server::Server;

    /// Returns the first shard for keys that start with `a`, and the second for all others.
    fn by_first_letter(key: &str, _: usize) -> usize {
        usize::from(!key.starts_with('a'))
    }

    async fn two_shards() -> ([Server; 2], Client) {
        let servers = [
            Server::builder().port(0).start().await.unwrap(),
            Server::builder().port(0).start().await.unwrap(),
        ];
        let client = Client::builder()
            .servers(servers.iter().map(|server| server.local_addr().to_string()))
            .sharding_strategy(by_first_letter)
            .connect()
            .await
            .unwrap();
        (servers, client)
    }

    #[tokio::test]
    async fn a_shard_that_dies_is_restarted_its_holders_are_told_and_the_other_shard_is_unaffected() {
        let (servers, client) = two_shards().await;
        let doomed = client.lock("a/held").unwrap().acquire().await.unwrap();
        let other = client.lock("b/held").unwrap().acquire().await.unwrap();
        let (a, b) = (client.lock("a/held").unwrap(), client.lock("b/held").unwrap());
        let waiting = tokio::spawn(async move { a.acquire().await.map(drop) });
        let unharmed = tokio::spawn(async move { b.acquire().await.map(drop) });
        while servers.iter().any(|server| server.stats().locks[0].waiters == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        client.core().topology.shards[0].tell(Input::Die).unwrap();

        assert_eq!(doomed.lost().await, LostReason::ShardGone);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ShardGone, "{error}");
        assert!(error.is_retryable(), "{error}");
        assert!(other.is_held() && !unharmed.is_finished());
        other.release().await.unwrap();
        unharmed.await.unwrap().unwrap();

        // The new actor is in place as soon as the router has learned of the death. Until then, callers get a retryable
        // error.
        let again = loop {
            match client.lock("a/held").unwrap().acquire().await {
                Ok(guard) => break guard,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ShardGone, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(again.is_held() && !doomed.is_held());
        // This guard belongs to the dead actor: dropping it must not affect the leases of the new actor.
        drop(doomed);
        assert!(client.shutdown(Duration::from_secs(5)).await.unreleased.is_empty());
    }
}
