//! Recipe: a job that runs once a day, on one of several hosts.
//!
//!     cargo run --example daily_job
//!
//! If the job is a command, `dflock run` does this, and you need no program of your own: see
//! `docs/guide/src/command-reference.md`.
//!
//! All hosts wake at the same time and try the lock; those that do not get it go back to sleep. The lock alone only
//! ensures that the job does not run *twice at once*, because a lock does not outlive its holder's connection. A note
//! ensures that it does not run *again* on the same day: the job's database stores the last day that was done, and the
//! holder of the lock reads and writes it. The note has the fence of its grant, so that a stalled host cannot write it
//! late. This needs servers from release 2.1 on; with earlier ones `connect` fails at once.

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::Story;
use dflockd_client::{Client, Error, ErrorKind, Fence, Fencing};

/// The database of the job: the last day that was done, and the fence of its grant.
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
    // The work is stopped if the lease is lost: then another host may do it.
    let job = lock.with_lock(async |guard| {
        if note.get().is_some_and(|(day, _)| day >= TODAY) {
            return Ok::<_, Error>("it is done already");
        }
        story.tell(format!("{host}: does it"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        // As a database does: it refuses a note with a smaller fence than the stored one.
        let fence = guard.require_fence()?;
        if note.get().is_some_and(|(_, newest)| newest >= fence) {
            return Ok("done too late, another host has done it");
        }
        note.set(Some((TODAY, fence)));
        Ok("done")
    });
    let told = match job.await {
        Err(error) if error.kind() == ErrorKind::Timeout => "another host is doing it",
        other => other?,
    };
    story.tell(format!("{host}: {told}"));
    Ok(())
}
