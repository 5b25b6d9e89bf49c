//! Recipe: a job that runs once a day, on whichever host comes first.
//!
//!     cargo run --example daily_job
//!
//! All hosts wake at the same time and try; who does not get the lock goes back to sleep. The lock alone makes sure
//! that the job does not run *twice at once*. That it does not run *again* once it is done is for a note of the day
//! that it was done for, kept where the job writes, and looked at and made while the lock is held: a lock does not
//! outlive its holder's connection. The note keeps the fence of its grant, so that a host that was stalled cannot make it late; this
//! needs servers from release 2.1 on, and ends at once with others.

mod common;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Story;
use dflockd_client::{Client, Error, Fence, Fencing};

/// Stands for the database that the job writes to: the last day that was done, and by which grant.
type Note = Arc<Mutex<Option<(u32, Fence)>>>;

const TODAY: u32 = 20_260_101;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _server) = common::connect(Fencing::Required).await?;
    let note = Note::default();

    story.tell("midnight: three hosts wake");
    let mut hosts = tokio::task::JoinSet::new();
    for host in ["anna", "boris", "chloe"] {
        hosts.spawn(wake(story, client.clone(), Arc::clone(&note), host));
    }
    for outcome in hosts.join_all().await {
        outcome?;
    }
    story.tell("a fourth has slept too long, and wakes when all is done");
    wake(story, client, note, "david").await
}

async fn wake(story: Story, client: Client, note: Note, host: &'static str) -> Result<(), Error> {
    let lock = client.lock("recipes/daily-job")?;
    let Some(guard) = lock.try_acquire().await? else {
        story.tell(format!("{host}: somebody else is at it"));
        return Ok(());
    };
    let done = *note.lock().unwrap_or_else(PoisonError::into_inner);
    if done.is_some_and(|(day, _)| day >= TODAY) {
        story.tell(format!("{host}: it is done already"));
        return guard.release().await;
    }
    story.tell(format!("{host}: does it"));
    // Stopped if the lease is lost: then another host may do it.
    guard.run(tokio::time::sleep(Duration::from_millis(300))).await?;
    let fence = guard.require_fence()?;
    match write(&note, fence) {
        true => story.tell(format!("{host}: done")),
        false => story.tell(format!("{host}: done too late, another host has done it")),
    }
    guard.release().await
}

/// As a database does it: a note by a smaller fence than the one that is there is refused.
fn write(note: &Note, fence: Fence) -> bool {
    let mut note = note.lock().unwrap_or_else(PoisonError::into_inner);
    let is_newer = note.is_none_or(|(_, newest)| newest < fence);
    if is_newer {
        *note = Some((TODAY, fence));
    }
    is_newer
}
