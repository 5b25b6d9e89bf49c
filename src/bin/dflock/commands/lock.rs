//! `dflock lock`: holds a lock or a slot until Ctrl-C, or until standard input ends.

use std::io::Read;

use dflockd_client::Client;
use dflockd_client::tokio::sync::oneshot;

use super::{leave, leave_on_failure};
use crate::args::{LockArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::holding::Held;
use crate::output;
use crate::process::{Signals, stdin_may_be_read};
use crate::sources::Sources;

pub(super) async fn lock(flags: &SourceFlags, of: &LockArguments) -> Result<Exit, Failure> {
    let sources = Sources::read(flags, &of.hold.settings(), &[])?;
    let mut signals = Signals::that_end()?;
    let client = sources.client()?;
    let done = hold(&client, of, &mut signals).await;
    leave_on_failure(&done, &client, &mut signals).await;
    done
}

async fn hold(client: &Client, of: &LockArguments, signals: &mut Signals) -> Result<Exit, Failure> {
    let acquired = tokio::select! {
        biased;
        exit = signals.ended() => {
            leave(client, signals).await;
            return Ok(exit);
        }
        held = Held::acquire(client, &of.hold) => held,
    };
    let held = acquired?;
    output::json(&held.about(client)?)?;
    tokio::select! {
        biased;
        (key, reason) = held.lost() => {
            return Err(Failure::new(Exit::LOST, format!("the lease of {key:?} was lost: {reason}"))
                .remedy("stop what it protects, and acquire it again"));
        }
        _ = signals.ended() => {}
        () = end_of_stdin(), if !of.ignore_stdin && stdin_may_be_read() => {}
    }
    // A signal that comes now ends the wait for the server's answer.
    tokio::select! {
        biased;
        exit = signals.ended() => Ok(exit),
        released = held.release() => {
            released?;
            Ok(Exit::SUCCESS)
        }
    }
}

/// Resolves when standard input ends, or cannot be read.
async fn end_of_stdin() {
    let (tell, told) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 1024];
        while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
        drop(tell);
    });
    drop(told.await);
}
