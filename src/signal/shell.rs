//! The layer between ractor and a [`LinkMachine`]: it starts the machine, passes its messages, and handles every kind
//! of end.
//!
//! A panic counts as the loss of the connection, which is opened again with all its subscriptions. If the machine
//! panics again while it handles that loss, the link ends and the consumer is told. If a link's task is dropped, its
//! runtime has ended.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::actor::{LinkArguments, LinkMachine};
use super::buffer::Buffer;
use super::message::LinkMessage;
use crate::ending::runtime_ended;
use crate::error::{Error, ErrorKind, Result};
use crate::net::health::ShardHealth;
use crate::telemetry::actor_span::ActorSpan;
use crate::unwind::{Panic, catch};

/// The behaviour of the actor; its state is [`Shell`].
pub(super) struct LinkActor;

/// The state of the actor.
pub(super) struct Shell {
    index: usize,
    buffer: Arc<Buffer>,
    health: watch::Sender<ShardHealth>,
    stage: Stage,
}

enum Stage {
    Starting(Box<LinkArguments>),
    Running(Box<LinkMachine>, ActorSpan),
    /// The actor panicked, and that was reported.
    Died,
}

impl Actor for LinkActor {
    type Msg = LinkMessage;
    type State = Shell;
    type Arguments = LinkArguments;

    async fn pre_start(&self, _: ActorRef<LinkMessage>, arguments: LinkArguments) -> Result<Shell, ActorProcessingErr> {
        Ok(Shell {
            index: arguments.index,
            buffer: Arc::clone(&arguments.buffer),
            health: arguments.health.clone(),
            stage: Stage::Starting(Box::new(arguments)),
        })
    }

    async fn post_start(&self, myself: ActorRef<LinkMessage>, shell: &mut Shell) -> Result<(), ActorProcessingErr> {
        Ok(shell.start(myself)?)
    }

    async fn handle(
        &self,
        _: ActorRef<LinkMessage>,
        message: LinkMessage,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        Ok(shell.handle(message)?)
    }
}

impl Shell {
    fn start(&mut self, myself: ActorRef<LinkMessage>) -> Result<()> {
        let Stage::Starting(arguments) = std::mem::replace(&mut self.stage, Stage::Died) else {
            return Ok(());
        };
        let span = ActorSpan::current(&arguments.client);
        match span.outside(|| catch(|| LinkMachine::start(myself, *arguments))) {
            Ok(link) => {
                self.stage = Stage::Running(Box::new(link), span);
                Ok(())
            }
            Err(panic) => Err(self.died(&panic)),
        }
    }

    fn handle(&mut self, message: LinkMessage) -> Result<()> {
        let Stage::Running(link, span) = &mut self.stage else {
            return Ok(());
        };
        let handled = span.outside(|| catch(|| link.handle(message)).or_else(|panic| catch(|| link.panicked(&panic))));
        handled.map_err(|panic| self.died(&panic))
    }

    fn died(&mut self, panic: &Panic) -> Error {
        let error = Error::new(
            ErrorKind::ShardGone,
            format!("the actor of the signals of shard {} panicked: {panic}", self.index),
        );
        let error = error.fatal().at(&self.health.borrow().endpoint);
        self.end(&error);
        let before = std::mem::replace(&mut self.stage, Stage::Died);
        drop(catch(|| drop(before)));
        error
    }

    fn end(&self, why: &Error) {
        self.health.send_if_modified(|health| health.close(why));
        self.buffer.end(why.clone());
    }
}

/// Reports the end of the runtime. A link that neither died nor was closed is dropped only together with its task.
impl Drop for Shell {
    fn drop(&mut self) {
        let ended = match &self.stage {
            Stage::Starting(_) => true,
            Stage::Running(link, _) => !link.is_over(),
            Stage::Died => false,
        };
        if ended {
            self.end(&runtime_ended("signal connection"));
        }
    }
}
