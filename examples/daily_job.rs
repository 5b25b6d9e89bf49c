//! Recipe: a job that runs once a day, on whichever host comes first.
//!
//!     cargo run --example daily_job
//!
//! Where the job is a command, `dflock run` does it without a program of yours: see `docs/guide/src/command-reference.md`.
//!
//! All hosts wake at the same time and try; who does not get the lock goes back to sleep. The lock alone makes sure
//! that the job does not run *twice at once*. That it does not run *again* once it is done is for a note of the day
//! that it was done for, kept where the job writes, and looked at and made while the lock is held: a lock does not
//! outlive its holder's connection. The note keeps the fence of its grant, so that a host that was stalled cannot make it late; this
//! needs servers from release 2.1 on, and ends at once with others.

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::Story;
use dflockd_client::{Client, Error, ErrorKind, Fence, Fencing};

/// Stands for the database that the job writes to: the last day that was done, and by which grant.
type Note = Cell<Option<(u32, Fence)>>;

const TODAY: u32 = 20_260_101;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _server) = common::connect(Fencing::Required, 1).await?;
    let note = Note::default();
    let wake = |host| wake(story, &client, &note, host);

    story.tell("midnight: three hosts wake");
    tokio::try_join!(wake("anna"), wake("boris"), wake("chloe"))?;
    story.tell("a fourth has slept too long, and wakes when all is done");
    wake("david").await
}

async fn wake(story: Story, client: &Client, note: &Note, host: &str) -> Result<(), Error> {
    let lock = client.lock("recipes/daily-job")?.acquire_timeout(Duration::ZERO);
    // Stopped if the lease is lost: then another host may do it.
    let job = lock.with_lock(async |guard| {
        if note.get().is_some_and(|(day, _)| day >= TODAY) {
            return Ok::<_, Error>("it is done already");
        }
        story.tell(format!("{host}: does it"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        // As a database does it: a note by a smaller fence than the one that is there is refused.
        let fence = guard.require_fence()?;
        if note.get().is_some_and(|(_, newest)| newest >= fence) {
            return Ok("done too late, another host has done it");
        }
        note.set(Some((TODAY, fence)));
        Ok("done")
    });
    let told = match job.await {
        Err(error) if error.kind() == ErrorKind::Timeout => "another host is at it",
        other => other?,
    };
    story.tell(format!("{host}: {told}"));
    Ok(())
}
