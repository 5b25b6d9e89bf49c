//! Recipe: a job that runs once a day, on one of several hosts.
//!
//!     cargo run --example daily_job
//!
//! If the job is a command, use `dflock run` instead of a program of your own: see
//! `docs/guide/src/command-reference.md`.
//!
//! All hosts wake at the same time and try to acquire the lock. A host that does not get the lock does nothing. The
//! lock ensures that the job does not run on two hosts *at once*, but it is free again after the job.
//!
//! A note in the job's database ensures that the job does not run *again* on the same day. The note is the last day for
//! which the job was done. The holder of the lock reads and writes the note. The note also has the fence of its writer,
//! so that a stalled host cannot write it late. Fences need servers of release 2.1 or later. With earlier servers,
//! `connect` fails at once.

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::Story;
use dflockd_client::{Client, Error, ErrorKind, Fence, Fencing};

/// The note in the job's database: the last day for which the job was done, and the fence of the holder that did it.
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
    // `with_lock` stops the work if the lease is lost, because another host may then do the work.
    let job = lock.with_lock(async |guard| {
        if note.get().is_some_and(|(day, _)| day >= TODAY) {
            return Ok::<_, Error>("it is done already");
        }
        story.tell(format!("{host}: runs the job"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        // In production, the database makes this check. It refuses a note if the stored fence is equal or larger.
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
