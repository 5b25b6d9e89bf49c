//! Programs that send and receive signals.

use std::time::Duration;

use dflockd_client::{Group, Pattern, SignalEvent, SignalOptions, SubscribeRequest};

use super::super::caller::{Asked, Caller};
use super::super::history::record::{Action, Extent, Gap, Name, Received, Subscribed, Subscription, What};
use super::locks::rest;

/// How a subscriber takes what comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Fast,
    /// Slower than they come, with little room.
    Slow,
    /// As a member of a group.
    Shared,
}

pub async fn publisher(caller: &mut Caller) {
    let burst = match caller.random.u32(..4) {
        0 => 40,
        _ => 3,
    };
    for _ in 0..caller.random.u32(1..=burst) {
        let channel = format!("c.{}", caller.random.u32(..2));
        // Each payload once.
        let payload = format!("{}-{}", caller.process.name, caller.process.writer.next_id());
        let mut asked = Asked::new(Action::Emit).within(caller.process.request_timeout);
        asked.channel = Some(Name::from(&channel));
        asked.payload = Some(Name::from(&payload));
        let client = caller.process.client.clone();
        let returned = caller.call(asked, client.emit(&channel, &payload)).await;
        caller.ended(&returned);
        if caller.is_done() {
            return;
        }
    }
    rest(caller).await;
}

pub async fn subscriber(caller: &mut Caller, pace: Pace) {
    let text = ["c.*", "c.0", "c.>"][caller.random.usize(..3)];
    let Ok(pattern) = Pattern::new(text) else { return };
    let mut request = SubscribeRequest::new(pattern);
    let mut group = None;
    if pace == Pace::Slow {
        request = request.options(SignalOptions::default().buffer(4));
    }
    if pace == Pace::Shared {
        let Ok(members) = Group::new("g") else { return };
        request = request.group(members);
        group = Some(Name::from("g"));
    }
    let mut asked = Asked::new(Action::Listen).within(caller.process.request_timeout);
    asked.channel = Some(Name::from(text));
    let client = caller.process.client.clone();
    let returned = caller.call(asked, client.subscribe_with(request)).await;
    let process = caller.process.name.clone();
    let subscription = caller.process.writer.next_id();
    if let Some(Ok(_)) = returned.result {
        caller.note(What::Subscribed(Subscribed {
            process: process.clone(),
            subscription,
            pattern: Name::from(text),
            group,
        }));
    }
    caller.ended(&returned);
    let Some(Ok(mut signals)) = returned.result else {
        return rest(caller).await;
    };
    let until = caller.process.writer.now() + caller.random.u64(..20_000) * 1_000_000;
    while !caller.is_done() && caller.process.writer.now() < until {
        let event = tokio::time::timeout(Duration::from_millis(500), signals.next_event()).await;
        let process = process.clone();
        match event {
            Err(_) => continue,
            Ok(None) => {
                let extent = Extent::Begins;
                caller.note(What::Gap(Gap {
                    process,
                    subscription,
                    extent,
                }));
                break;
            }
            Ok(Some(SignalEvent::Signal(signal))) => caller.note(What::Received(Received {
                process,
                subscription,
                channel: Name::from(signal.channel()),
                payload: Name::from(signal.payload()),
            })),
            Ok(Some(event)) => {
                let extent = match event {
                    SignalEvent::Lost { .. } => Extent::Begins,
                    SignalEvent::Restored { .. } => Extent::Ends,
                    _ => Extent::Here,
                };
                caller.note(What::Gap(Gap {
                    process,
                    subscription,
                    extent,
                }));
            }
        }
        if pace == Pace::Slow {
            caller.pause(Duration::from_millis(800)).await;
        }
    }
    caller.note(What::Unsubscribed(Subscription { process, subscription }));
    drop(signals);
    rest(caller).await;
}
