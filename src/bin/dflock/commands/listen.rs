//! `dflock listen`: prints the signals of channels as they arrive.

use dflockd_client::{Group, Pattern, SignalEvent, SubscribeRequest};
use serde::Serialize;

use crate::args::{ListenArguments, SourceFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::plain::plain;
use crate::process::Signals;
use crate::sources::Sources;
use crate::tell;
use crate::words::for_shells;

/// One line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum ListenLine<'a> {
    Signal { channel: &'a str, payload: &'a str },
    Lost { shard: usize, cause: String },
    Restored { shard: usize },
    Dropped { count: u64 },
}

pub(super) async fn listen(flags: &SourceFlags, of: &ListenArguments) -> Result<Exit, Failure> {
    let sources = Sources::read(flags, &[], &[])?;
    let mut signals = Signals::that_end()?;
    let client = sources.client()?;
    let mut request = SubscribeRequest::new(Pattern::new(&of.pattern)?);
    if let Some(group) = &of.group {
        request = request.group(Group::new(group)?);
    }
    let mut stream = tokio::select! {
        biased;
        exit = signals.ended() => return Ok(exit),
        subscribed = client.subscribe_with(request) => subscribed?,
    };
    let mut left = of.count;
    while left != Some(0) {
        let event = tokio::select! {
            biased;
            exit = signals.ended() => return Ok(exit),
            event = stream.next_event() => event,
        };
        let Some(event) = event else {
            return Err(Failure::new(Exit::SERVER_AWAY, "the signals have ended"));
        };
        show(&event, of.json)?;
        if matches!(event, SignalEvent::Signal(_)) {
            left = left.map(|left| left - 1);
        }
    }
    Ok(Exit::SUCCESS)
}

fn show(event: &SignalEvent, as_json: bool) -> Result<(), Failure> {
    let told = match event {
        SignalEvent::Signal(signal) => ListenLine::Signal {
            channel: signal.channel(),
            payload: signal.payload(),
        },
        SignalEvent::Lost { shard, cause, .. } => ListenLine::Lost {
            shard: *shard,
            cause: for_shells(&cause.to_string()),
        },
        SignalEvent::Restored { shard, .. } => ListenLine::Restored { shard: *shard },
        SignalEvent::Dropped { count, .. } => ListenLine::Dropped { count: *count },
        _ => return Ok(()),
    };
    if as_json {
        return output::json(&told);
    }
    match told {
        ListenLine::Signal { channel, payload } => return output::line(plain(&format!("{channel} {payload}"))),
        ListenLine::Lost { shard, cause } => tell::warn(&format!(
            "signals of shard {shard} may be missing from here on: {cause}"
        )),
        ListenLine::Restored { shard } => tell::warn(&format!("signals of shard {shard} arrive again")),
        ListenLine::Dropped { count } => tell::warn(&format!("{count} signals came too fast and are missing here")),
    }
    Ok(())
}
