//! The router: owns the topology and supervises the shards' actors.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, SupervisionEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::shard::{Run, ShardActor, ShardArguments};
use super::topology::{ShardPlace, Topology};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::health::ShardHealth;
use crate::shard::effect::Handover;
use crate::shard::input::{Input, Mailbox, Shutdown};
use crate::telemetry::sink::ShardSink;

/// What the router is told.
pub(crate) enum RouterMessage {
    /// The last client is gone: have every shard give back what it holds, and end.
    Close { until: Instant },
}

pub(crate) struct RouterActor;

pub(crate) struct Router {
    topology: Arc<Topology>,
    arguments: Vec<ShardArguments>,
    /// How many shards have not ended yet.
    running: usize,
}

/// Starts the router and one actor per shard. Needs a tokio runtime; does not wait for any connection.
pub(crate) fn start(config: &Config) -> Result<(ActorRef<RouterMessage>, Arc<Topology>)> {
    needs_a_runtime("a client")?;
    let arguments: Vec<ShardArguments> = config
        .shards
        .iter()
        .enumerate()
        .map(|(index, plan)| ShardArguments {
            index,
            plan: plan.clone(),
            config: config.shard.clone(),
            health: watch::Sender::new(ShardHealth::connecting(index, plan.first())),
            sink: ShardSink::new(config.sink.clone(), index),
            handover: watch::Sender::new(Handover::default()),
        })
        .collect();
    // The router is told of a shard's death by its mailbox, which exists as soon as the router is spawned; but it takes
    // its state, the topology, when it starts. So the shards are spawned in between.
    let (hand_over, taken_over) = tokio::sync::oneshot::channel();
    let (router, _) = ActorRuntime::spawn_instant(None, RouterActor, taken_over).map_err(not_started)?;
    let mut shards = Vec::with_capacity(arguments.len());
    for shard in &arguments {
        let actor = start_shard(shard, &router).map_err(not_started)?;
        shards.push(ShardPlace::new(
            shard.index,
            actor,
            shard.health.subscribe(),
            config.max_in_flight,
            config.max_waiters,
        ));
    }
    let topology = Arc::new(Topology {
        strategy: config.strategy.clone(),
        shards,
    });
    let state = Router {
        topology: Arc::clone(&topology),
        running: arguments.len(),
        arguments,
    };
    drop(hand_over.send(state));
    Ok((router, topology))
}

/// Starts a shard's actor, and has it run.
fn start_shard(
    arguments: &ShardArguments,
    router: &ActorRef<RouterMessage>,
) -> std::result::Result<(ActorRef<Run>, Mailbox), ractor::SpawnErr> {
    let (mailbox, inputs) = Mailbox::new();
    let arguments = (arguments.clone(), mailbox.clone(), inputs);
    let (actor, _) = ActorRuntime::spawn_linked_instant(None, ShardActor, arguments, router.get_cell())?;
    // If it has ended already, the router is told.
    drop(actor.send_message(Run));
    Ok((actor, mailbox))
}

/// Actors are started on the current runtime.
pub(crate) fn needs_a_runtime(what: &str) -> Result<()> {
    if tokio::runtime::Handle::try_current().is_ok() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("{what} needs a tokio runtime: make it inside one (`#[tokio::main]`, or `runtime.enter()`)"),
    ))
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
        _myself: ActorRef<RouterMessage>,
        state: tokio::sync::oneshot::Receiver<Router>,
    ) -> Result<Router, ActorProcessingErr> {
        Ok(state.await?)
    }

    async fn handle(
        &self,
        _myself: ActorRef<RouterMessage>,
        message: RouterMessage,
        router: &mut Router,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RouterMessage::Close { until } => {
                for shard in &router.topology.shards {
                    // One that is dead holds nothing.
                    drop(shard.tell(Input::Shutdown(Shutdown { until, told: None })));
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RouterMessage>,
        event: SupervisionEvent,
        router: &mut Router,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => router.restart(&myself, who.get_id(), &error.to_string()),
            // Shards end by themselves only when the client is shut down.
            SupervisionEvent::ActorTerminated(..) => {
                router.running = router.running.saturating_sub(1);
                if router.running == 0 {
                    myself.stop(None);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Router {
    /// A shard's actor died. Its connections and leases died with it, and whoever depends on them was told; a new one
    /// starts from nothing.
    fn restart(&mut self, myself: &ActorRef<RouterMessage>, who: ractor::ActorId, error: &str) {
        let place = self.topology.shards.iter().find(|place| place.is_actor(who));
        let Some((place, arguments)) = place.and_then(|place| Some((place, self.arguments.get(place.index)?))) else {
            return;
        };
        tracing::error!(shard = place.index, endpoint = %place.endpoint(), error, "a shard's actor died: restarting it");
        match start_shard(arguments, myself) {
            Ok(actor) => place.replace(actor),
            Err(error) => tracing::error!(shard = place.index, %error, "a shard's actor could not be restarted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Client;
    use crate::lease::cell::LostReason;
    use crate::server::Server;

    /// Keys that start with `a` belong to the first shard, all others to the second.
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
    async fn a_shard_that_dies_is_restarted_its_holders_are_told_and_nobody_else_notices() {
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

        // The new actor is in its place as soon as the router has heard of it; until then callers are told to try again.
        let again = loop {
            match client.lock("a/held").unwrap().acquire().await {
                Ok(guard) => break guard,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ShardGone, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(again.is_held() && !doomed.is_held());
        // Its guard is of the dead actor: dropping it must not touch what the new one holds.
        drop(doomed);
        assert!(client.shutdown(Duration::from_secs(5)).await.unreleased.is_empty());
    }
}
