//! The layer between ractor and a [`Driver`]: it starts and runs the driver, and handles each of the driver's possible
//! ends:
//!
//! | end | consequences |
//! | --- | --- |
//! | a shutdown | the shard itself has informed its callers and holders |
//! | a panic, here or in users' code | its leases are lost, its callers get an error that names the panic, and the router starts another actor |
//! | its task was dropped | the runtime has ended: the client is closed, and all its errors say so |

use std::future::poll_fn;
use std::task::Poll;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tracing::Span;

use super::{Driver, ShardArguments};
use crate::ending::{Ending, runtime_ended};
use crate::error::{Error, ErrorKind, Result};
use crate::events::board::HealthBoard;
use crate::shard::input::{Inputs, Mailbox};
use crate::telemetry::actor_span::ActorSpan;
use crate::telemetry::client_name::ClientName;
use crate::unwind::{Panic, catch};

/// The behaviour of the actor. Its only message makes it run until the shard ends.
pub(crate) struct ShardActor;

/// Sent once, after the actor has been started.
pub(crate) struct Run;

/// The parameters of an actor.
type Parts = (ShardArguments, Mailbox, Inputs);

/// The state of the actor.
pub(crate) struct Shell {
    index: usize,
    health: HealthBoard,
    ending: Ending,
    client: ClientName,
    stage: Stage,
}

enum Stage {
    Starting(Box<Parts>),
    Running(Box<Driver>),
    /// It was shut down, or it panicked and the panic was reported.
    Over,
}

impl Actor for ShardActor {
    type Msg = Run;
    type State = Shell;
    type Arguments = Parts;

    /// Starts nothing yet, because ractor does not tell the router of a failure here.
    async fn pre_start(&self, _: ActorRef<Run>, parts: Parts) -> std::result::Result<Shell, ActorProcessingErr> {
        Ok(Shell {
            index: parts.0.index,
            health: parts.0.health.clone(),
            ending: parts.0.ending.clone(),
            client: parts.0.client.clone(),
            stage: Stage::Starting(Box::new(parts)),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Run>,
        Run: Run,
        shell: &mut Shell,
    ) -> std::result::Result<(), ActorProcessingErr> {
        shell.run().await?;
        myself.stop(None);
        Ok(())
    }
}

impl Shell {
    /// Runs until the shard has ended or died.
    async fn run(&mut self) -> Result<()> {
        let Stage::Starting(parts) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(());
        };
        let span = ActorSpan::current(&self.client);
        match span.outside(|| catch(|| Driver::start(*parts))) {
            Ok(driver) => self.stage = Stage::Running(Box::new(driver)),
            Err(panic) => return Err(span.outside(|| self.died(&panic))),
        }
        let turns = poll_fn(|cx| match &mut self.stage {
            Stage::Running(driver) => match span.outside(|| catch(|| driver.poll_turns(cx))) {
                Ok(turns) => turns.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            },
            Stage::Starting(_) | Stage::Over => Poll::Ready(Ok(())),
        });
        // The driver yields by itself, after a number of turns.
        let outcome = tokio::task::unconstrained(turns).await;
        span.outside(|| {
            outcome.map_err(|panic| self.died(&panic))?;
            self.stage = Stage::Over;
            Ok(())
        })
    }

    /// Handles a panic. Publishes the cause before the shard's callers see their channels closed, and closes the
    /// connections before the router starts another actor.
    fn died(&mut self, panic: &Panic) -> Error {
        let error = Error::new(
            ErrorKind::ShardGone,
            format!(
                "the actor of shard {} panicked: {panic}; another takes its place",
                self.index
            ),
        );
        let error = error.at(&self.health.endpoint());
        self.health.change(|health| health.died(error.clone()));
        let before = std::mem::replace(&mut self.stage, Stage::Over);
        drop(catch(|| drop(before)));
        error
    }
}

/// If the shard neither died nor was shut down, its task was dropped, so the runtime has ended.
impl Drop for Shell {
    fn drop(&mut self) {
        let ended = match &self.stage {
            Stage::Starting(_) => true,
            Stage::Running(driver) => !driver.is_over,
            Stage::Over => false,
        };
        if ended {
            self.ending.begin(runtime_ended("client"));
            if let Some(cause) = self.ending.cause() {
                self.health.close(cause);
            }
        }
        // The log lines of the ending carry the name of the client.
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let named = catch(|| self.client.span().map(Span::entered));
        drop(stage);
        drop(catch(|| drop(named)));
    }
}
