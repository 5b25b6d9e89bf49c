//! Recipe: acquire in two phases (enqueue, then wait), and notify a user between them.
//!
//!     cargo run --example two_phase
//!
//! Another job uses the printer. A new job takes a queue position, which does not block, and notifies its user. Then
//! the job waits at this queue position. With a plain `acquire`, the user would get no notice before the wait ends.

mod common;

use std::time::Duration;

use common::Story;
use dflockd_client::{Client, Enqueued, Error, ErrorKind, Fencing};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let story = Story::begin();
    let (client, _server) = common::connect(Fencing::IfKnown, 1).await?;
    // The channel to the user. In production, this is for example mail or a socket.
    let (notify, mut notices) = mpsc::unbounded_channel::<String>();
    let user = tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            story.tell(format!("the user reads: {notice}"));
        }
    });

    let printing = client.lock("recipes/printer")?.acquire().await?;
    story.tell("another job is printing");
    let patient = tokio::spawn(print(client.clone(), "job 1", Duration::from_secs(30), notify.clone()));
    let hasty = tokio::spawn(print(client.clone(), "job 2", Duration::from_millis(150), notify));
    tokio::time::sleep(Duration::from_millis(400)).await;
    story.tell("the other job is done");
    printing.release().await?;
    for job in [patient, hasty] {
        job.await
            .unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))?;
    }
    user.await
        .unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()));
    Ok(())
}

async fn print(
    client: Client,
    job: &str,
    patience: Duration,
    notify: mpsc::UnboundedSender<String>,
) -> Result<(), Error> {
    // An error is ignored: it means that the user no longer reads notices.
    let tell = |what: &str| drop(notify.send(format!("{job} {what}")));
    let guard = match client.lock("recipes/printer")?.enqueue().await? {
        Enqueued::Acquired(guard) => guard,
        Enqueued::Queued(ticket) => {
            tell("is in the queue");
            match ticket.wait(patience).await {
                Ok(guard) => guard,
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    tell("was cancelled: the wait took too long");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    };
    tell("is printing");
    guard.run(tokio::time::sleep(Duration::from_millis(100))).await?;
    tell("is done");
    guard.release().await
}
